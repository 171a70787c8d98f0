"""Figures for the data card: true, mergeable, the same in any order."""

import json
import pickle
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftcore.data.cleaning.language import detect
from swiftcore.data.cleaning.statistics import BINS_PER_DOUBLING, Lengths, RowStatistics, bin_start
from swiftcore.errors import DataError

TOOLS = json.dumps(
    [
        {"type": "function", "function": {"name": "weather", "parameters": {"name": "city"}}},
        {"name": "clock"},
    ]
)


def message(role: str, content: str) -> dict[str, object]:
    return {"role": role, "content": content}


ROWS: list[dict[str, object]] = [
    {
        "messages": [
            message("system", "Be kind."),
            message("user", "What is the weather?"),
            message("tool_call", '{"name": "weather", "arguments": {"name": "clock"}}'),
            message("tool_response", "sunny"),
            message("assistant", "Sunny."),
        ],
        "tools": TOOLS,
    },
    {"messages": [message("user", "你好世界 hi"), message("assistant", "  ")], "label": True},
    {"messages": [message("user", "no answer")], "images": [{"path": "a.png", "bytes": None}]},
    {
        "messages": [message("user", "a"), message("assistant", "b"), message("user", "c")],
        "rejected_response": "d",
        "tools": "not json",
    },
    {"messages": [message("user", "x"), message("tool_call", '<call "name": "clock">')]},
]


def statistics(rows: list[dict[str, object]], sampling: int = 1) -> RowStatistics:
    found = RowStatistics(sampling)
    for row in rows:
        found.add(row)
    return found


def test_figures_of_a_few_rows():
    found = statistics(ROWS).as_dict()
    assert found["rows"] == 5
    assert found["turns"] == {"1": 4, "2": 1}
    assert found["roles"] == {
        **{"user": 6, "assistant": 3, "tool_call": 2, "system": 1, "tool_response": 1}
    }
    assert found["tools_offered"] == {"clock": 1, "weather": 1}
    assert found["tools_called"] == {"clock": 1, "weather": 1}
    assert found["columns"] == {
        **{"messages": 5, "tools": 2, "(system prompt)": 1, "images": 1, "label": 1},
        **{"rejected_response": 1},
    }
    # An answer of spaces, and none at all.
    assert found["empty_answers"] == 2
    characters, words = found["characters"], found["words"]
    assert isinstance(characters, dict)
    assert isinstance(words, dict)
    assert (characters["count"], characters["min"]) == (5, 5)
    # The second row: four characters of Chinese and one word.
    assert statistics(ROWS[1:2]).words.total == 5


def test_chunks_merge_to_the_figures_of_the_whole_in_any_split():
    rng = random.Random(1)
    rows = [
        {
            "messages": [
                message("user", "w " * rng.randrange(1, 400)),
                message("assistant", f"Answer number {place} about the weather in the city."),
            ]
        }
        for place in range(200)
    ]
    whole = statistics(rows, 4).to_json()
    for cuts in ((0, 200), (0, 1, 200), (0, 50, 51, 150, 200)):
        merged = RowStatistics(4)
        for start, end in pairwise(cuts):
            part = pickle.loads(pickle.dumps(statistics(rows[start:end], 4)))
            merged.merge(RowStatistics.from_json(part.to_json()))
        assert merged.to_json() == whole
    rng.shuffle(rows)
    assert statistics(rows, 4).to_json() == whole


def test_languages_are_sampled_by_content():
    texts = [f"The weather in city number {place} was fine this morning." for place in range(400)]
    rows: list[dict[str, object]] = [{"messages": [message("user", text)]} for text in texts]
    sampled = statistics(rows, 8)
    assert 30 <= sum(sampled.languages.values()) <= 70
    assert set(sampled.languages) == {detect(texts[0])[0]}
    assert sum(statistics(rows, 1).languages.values()) == 400
    assert not statistics(rows, 0).languages


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=10**9), min_size=1, max_size=200))
def test_percentiles_are_within_the_stated_error(lengths):
    found = Lengths()
    for length in lengths:
        found.add(length)
    assert (found.smallest, found.largest) == (min(lengths), max(lengths))
    assert (found.count, found.total) == (len(lengths), sum(lengths))
    for share in (0.5, 0.95):
        true = sorted(lengths)[max(0, -int(-share * len(lengths) // 1) - 1)]
        assert found.percentile(share) == pytest.approx(true, rel=0.031, abs=1)


@given(st.integers(min_value=1, max_value=10**12))
def test_every_length_is_in_its_bin(length):
    found = Lengths()
    found.add(length)
    (place,) = found.bins
    assert bin_start(place) <= length * (1 + 1e-9)
    assert length < bin_start(place + 1) * (1 + 1e-9)
    assert bin_start(place + BINS_PER_DOUBLING) == pytest.approx(2 * bin_start(place))


def test_other_sampling_and_other_json_are_refused():
    with pytest.raises(DataError, match="different sampling"):
        RowStatistics(4).merge(RowStatistics(8))
    for text in ("{}", "[]", "x", '{"language_sampling": 1, "rows": 1}'):
        with pytest.raises(DataError, match="no row statistics"):
            RowStatistics.from_json(text)


def test_no_rows_have_figures_too():
    found = RowStatistics()
    assert found.as_dict()["characters"] == {
        **{"count": 0, "total": 0, "min": 0, "median": 0, "p95": 0, "max": 0, "bins": {}}
    }
    found.merge(statistics(ROWS, 16))
    assert found.to_json() == statistics(ROWS, 16).to_json()
