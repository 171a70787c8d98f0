"""Row choice: sizes and properties that hold for every count, ratio and seed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftcore.data import sample_indices
from swiftcore.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("num_rows", "sample", "ratio", "train", "val"),
    [
        (4, None, 0.0, [0, 1, 2, 3], []),
        (4, 2, 0.0, [0, 1], []),
        (4, 10, 0.0, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1], []),
        (10, None, 0.3, [0, 1, 2, 3, 4, 5, 6], [7, 8, 9]),
        (4, 9, 0.25, [0, 1, 2, 0, 1, 2, 0, 1], [3]),
        (10, 7, 0.01, [0, 1, 2, 3, 4, 5], [9]),
        (4, 3, 1.0, [], [0, 1, 2]),
    ],
)
def test_without_shuffle_rows_come_from_the_head_and_validation_from_the_tail(
    num_rows, sample, ratio, train, val
):
    assert sample_indices(num_rows, sample, ratio, shuffle=False) == (train, val)


@given(
    num_rows=st.integers(1, 60),
    sample=st.none() | st.integers(1, 200),
    ratio=st.floats(0, 1),
    shuffle=st.booleans(),
    seed=st.integers(0, 5),
)
def test_counts_add_up_and_no_row_is_in_both(num_rows, sample, ratio, shuffle, seed):
    try:
        train, val = sample_indices(num_rows, sample, ratio, shuffle, seed)
    except UsageError:
        return
    assert len(train) + len(val) == (num_rows if sample is None else sample)
    assert not set(train) & set(val)
    assert len(set(val)) == len(val)
    assert set(train) | set(val) <= set(range(num_rows))
    copies = Counter(train).values()
    assert not copies or max(copies) - min(copies) <= 1
    if len(set(train)) < num_rows - len(val):
        assert max(copies, default=1) == 1
    assert (train, val) == sample_indices(num_rows, sample, ratio, shuffle, seed)


def test_the_order_is_random_depends_on_the_seed_and_stays_the_same_for_ever():
    first, _ = sample_indices(1000, 8, seed=42)
    assert first == [394, 124, 368, 684, 290, 427, 481, 19]
    assert sample_indices(1000, 8, seed=43)[0] != first


@pytest.mark.parametrize(
    "arguments",
    [(10, 0), (10, -3), (10, 1.5), (10, True), (10, None, -0.1), (10, None, 1.1), (10, 20, 1.0)],
)
def test_numbers_without_meaning_are_usage_errors(arguments):
    with pytest.raises(UsageError):
        sample_indices(*arguments)


@pytest.mark.parametrize("arguments", [(10, 1, 0.3), (1, None, 0.5), (1, 10, 0.5)])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(arguments):
    with pytest.raises(UsageError, match="no row for training"):
        sample_indices(*arguments)


def test_no_rows_is_bad_data():
    with pytest.raises(DataError):
        sample_indices(0)
