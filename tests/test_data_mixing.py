"""Mixing by probabilities, and streams: which rows, how many, in which order."""

import json
from collections import Counter
from pathlib import Path

import pytest

from swiftcore.data import build_dataset, load_rows
from swiftcore.errors import DataError, UsageError
from swiftcore.recipe.sections import DataSection


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("a", 200), ("b", 1000)):
        lines = [json.dumps({"query": "q", "response": f"{name}{n}"}) for n in range(rows)]
        Path(f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _answers(**options) -> tuple[list[str], list]:
    options = {"dataset": ["a.jsonl", "b.jsonl"], "dataset_shuffle": False} | options
    report = build_dataset(DataSection(**options), Path("out"))
    rows = load_rows(Path("out"), "train")
    return [row["messages"][-1]["content"] for row in rows], report.sources


def test_mixing_ends_with_the_first_source_that_is_used_up():
    answers, (a, b) = _answers(interleave_prob=[0.5, 0.5])
    taken_from_b = [answer for answer in answers if answer[0] == "b"]
    assert [answer for answer in answers if answer[0] == "a"] == [f"a{n}" for n in range(200)]
    assert taken_from_b == [f"b{n}" for n in range(len(taken_from_b))]
    assert answers[-1] == "a199"
    assert 140 < len(taken_from_b) < 260
    assert (a.used, a.not_sampled) == (200, 0)
    assert (b.used, b.not_sampled) == (len(taken_from_b), 1000 - len(taken_from_b))


def test_mixing_until_every_source_was_used_up_repeats_the_small_one():
    answers, (a, b) = _answers(interleave_prob=[0.5, 0.5], stopping_strategy="all_exhausted")
    counts = Counter(answer[0] for answer in answers)
    assert counts["b"] == 1000
    assert answers[-1] == "b999"
    assert (a.used, a.repeated) == (200, counts["a"] - 200)
    assert 850 < counts["a"] < 1150
    assert b.repeated == 0


def test_a_source_of_probability_zero_gives_nothing_and_ends_nothing():
    answers, (a, b) = _answers(interleave_prob=[0, 1])
    assert answers == [f"b{n}" for n in range(1000)]
    assert (a.used, a.not_sampled, b.used) == (0, 200, 1000)


def test_the_seed_decides_the_mix():
    first, _ = _answers(interleave_prob=[0.3, 0.7])
    again, _ = _answers(interleave_prob=[0.3, 0.7])
    other, _ = _answers(interleave_prob=[0.3, 0.7], data_seed=7)
    assert first == again != other


@pytest.mark.parametrize(
    ("probabilities", "problem"),
    [([1.0], "1 probabilities for 2"), ([0.5, 0.6], "1.1"), ([-0.5, 1.5], "-0.5")],
)
def test_probabilities_that_do_not_fit_are_refused(probabilities, problem):
    with pytest.raises(UsageError) as caught:
        _answers(interleave_prob=probabilities)
    assert problem in (caught.value.found or "")
    assert caught.value.where == "data.interleave_prob"


def test_an_empty_source_can_not_be_mixed():
    section = {"interleave_prob": [0.5, 0.5], "test_dataset": ["a.jsonl"]}
    with pytest.raises(DataError, match="no row"):
        _answers(**section)


def test_a_stream_gives_its_head_and_never_repeats():
    answers, (a, b) = _answers(dataset=["a.jsonl#300", "b.jsonl#50"], streaming=True)
    assert answers == [f"a{n}" for n in range(200)] + [f"b{n}" for n in range(50)]
    assert (a.repeated, b.used, b.not_sampled) == (0, 50, 950)


def test_a_stream_is_shuffled_within_its_buffer():
    options = {"dataset": ["b.jsonl"], "streaming": True, "dataset_shuffle": True}
    answers, _ = _answers(**options, shuffle_buffer_size=50)
    assert sorted(answers) == sorted(f"b{n}" for n in range(1000))
    assert answers != [f"b{n}" for n in range(1000)]
    # A row can come early by at most the buffer; this is what tells a buffer from a full shuffle.
    assert all(int(answer[1:]) <= place + 50 for place, answer in enumerate(answers))
    in_order, _ = _answers(**options, shuffle_buffer_size=1)
    assert in_order == [f"b{n}" for n in range(1000)]


def test_a_stream_has_no_share_to_split_off():
    with pytest.raises(UsageError, match="no length"):
        _answers(streaming=True, split_dataset_ratio=0.1)
