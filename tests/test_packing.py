"""Packing: plans of whole rows, and the recipe's settings for it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from swiftcore.errors import DataError
from swiftcore.recipe import Recipe
from swiftcore.training.batches import PackedOrder
from swiftcore.training.packing import plan_packing

CAPACITY = 40
LENGTHS = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=60)


def best_fit_one_by_one(lengths):
    """The definition of best fit decreasing, row by row and bin by bin."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [place for place, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda place: rooms[place])] -= length
        else:
            rooms.append(CAPACITY - length)
    return len(rooms)


def next_fit_one_by_one(lengths):
    count, room = 0, 0
    for length in lengths:
        if length > room:
            count, room = count + 1, CAPACITY
        room -= length
    return count


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.sampled_from(["binpack", "sequential"]))
def test_each_row_is_in_exactly_one_sequence_and_none_is_too_long(lengths, strategy):
    packing = plan_packing(lengths, CAPACITY, strategy=strategy)
    bins = list(packing.bins())
    assert len(bins) == packing.num_bins
    assert sorted(itertools.chain(*bins)) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in rows) <= CAPACITY for rows in bins)
    assert packing.efficiency == pytest.approx(sum(lengths) / (len(bins) * CAPACITY))
    if strategy == "sequential":
        assert list(itertools.chain(*bins)) == list(range(len(lengths)))


@settings(max_examples=300, deadline=None)
@given(LENGTHS)
def test_best_fit_is_best_fit_and_never_worse_than_next_fit(lengths):
    packing = plan_packing(lengths, CAPACITY)
    next_fit = next_fit_one_by_one(lengths)
    assert packing.num_bins == min(best_fit_one_by_one(lengths), next_fit)
    assert plan_packing(lengths, CAPACITY, strategy="sequential").num_bins == next_fit


def test_an_order_so_lucky_that_best_fit_would_need_one_more():
    lengths = [44, 8, 8, 24, 24, 6, 6, 22, 21, 17]
    packing = plan_packing(lengths, 60)
    assert packing.num_bins == 3
    assert packing.efficiency == 1.0


def test_a_row_longer_than_a_sequence_is_named():
    with pytest.raises(DataError, match="2 of 3 rows don't fit") as caught:
        plan_packing([5, 90, 41], CAPACITY)
    assert "90 tokens" in caught.value.found


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(0, 5), st.integers(0, 5), st.sampled_from(["binpack", "sequential"]))
def test_epochs_are_of_equal_length_and_repeat_from_seed_and_epoch(lengths, seed, epoch, strategy):
    def ordered():
        order = PackedOrder(lengths, CAPACITY, strategy, seed=seed, shuffle=True)
        order.set_epoch(epoch)
        return order

    order = ordered()
    bins = list(order)
    assert bins == list(order) == list(ordered())
    assert len(bins) == len(order)
    assert sorted(itertools.chain(*bins)) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in rows) <= CAPACITY for rows in bins)


def test_each_epoch_mixes_rows_of_equal_length_anew():
    order = PackedOrder([10] * 40, CAPACITY, "binpack", seed=0, shuffle=True)
    first = {frozenset(rows) for rows in order}
    order.set_epoch(1)
    assert first != {frozenset(rows) for rows in order}
    still = PackedOrder([10] * 40, CAPACITY, "binpack", seed=0, shuffle=False)
    first = list(still)
    still.set_epoch(1)
    assert list(still) == first


def test_many_rows_fill_their_sequences():
    lengths = np.random.default_rng(0).integers(1, 2000, 100_000)
    packing = plan_packing(lengths, 4096)
    assert packing.efficiency > 0.999
    assert plan_packing(lengths, 4096, strategy="sequential").efficiency < 0.9


def recipe(train, **template):
    return Recipe.model_validate(
        {"name": "r", "model": {"model": "m"}, "data": {"dataset": ["d.jsonl"]}}
        | {"train": train, "template": template}
    )


@pytest.mark.parametrize(
    ("train", "template", "text"),
    [
        ({"packing_length": 64}, {}, "packing_length does nothing without train.packing"),
        ({"packing_strategy": "binpack"}, {}, "packing_strategy does nothing"),
        ({"packing": True}, {}, "needs train.packing_length or template.max_length"),
        ({"packing": True, "packing_length": 64}, {"max_length": 65}, "rows are kept whole"),
        ({"packing": True, "packing_length": 64, "group_by_length": True}, {}, "saves padding"),
        ({"padding_free": True, "group_by_length": True}, {}, "saves padding"),
        ({"padding_free": True, "neftune_noise_alpha": 5.0}, {}, "length of a sequence"),
        ({"group_by_length": True, "train_dataloader_shuffle": False}, {}, "shuffles rows"),
        ({"packing": True, "packing_strategy": "firstfit"}, {"max_length": 9}, "binpack"),
    ],
)
def test_settings_that_do_nothing_together_are_refused(train, template, text):
    with pytest.raises(ValidationError, match=text):
        recipe(train, **template)


def test_packing_takes_its_length_from_the_rows_longest():
    assert recipe({"packing": True}, max_length=64).train.packing_length is None
    assert recipe({"packing": True, "packing_length": 64}).train.packing
    assert recipe({"packing": True, "packing_length": 64}, max_length=64).train.packing
