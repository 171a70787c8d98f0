"""The data card: all figures there, sums checked, nothing from the data is markup."""

import copy
import re
from html.parser import HTMLParser

import pytest

from swiftcore.data.card import render_card
from swiftcore.data.card_charts import share, short_number
from swiftcore.data.cleaning.statistics import Lengths, RowStatistics

VOID = {"meta", "link", "br", "img", "input", "hr"}

REPORT: dict[str, object] = {
    "schema": 1,
    "splits": {"train": 90, "val": 10},
    "sources": [
        {
            **{"entry": "a.jsonl", "role": "train", "files": ["a.jsonl"], "rows": 105},
            **{"quarantined": 3, "duplicates": 2, "near_duplicates": 4, "held_out": 1},
            **{"not_sampled": 0, "used": 95, "repeated": 0, "written": {"train": 85, "val": 10}},
        },
        {
            **{"entry": "b <b>.csv#5", "role": "train", "files": ["b.csv"], "rows": 5},
            **{"quarantined": 0, "duplicates": 0, "near_duplicates": 0, "held_out": 0},
            **{"not_sampled": 2, "used": 3, "repeated": 2, "written": {"train": 5}},
        },
    ],
    "files": ["a.jsonl", "b.csv"],
    "columns": {"messages": 100},
    "unused_columns": {"id": 7},
    "quarantine_reasons": {"messages is an empty list": 3},
    "notes": ["2 rows of <i>b</i> were short"],
    "personal_data": {"EMAIL": 12},
}
SAMPLES: list[dict[str, object]] = [
    {
        "messages": [
            {"role": "system", "content": "Be <script>alert(1)</script> kind."},
            {"role": "user", "content": "Weather?\x00\x1b[31m\u202e"},
            {"role": "tool_call", "content": '{"name":"weather","arguments":{"city":"Köln"}}'},
            {"role": "tool_response", "content": "[1, 2"},
            {"role": "assistant", "content": "x" * 2000, "loss": False},
        ],
        "tools": '[{"type":"function","function":{"name":"weather"}}]',
        "rejected_response": "Go & see \udcff",
        "label": True,
    },
    *({"messages": [{"role": "user", "content": f"row {place}"}]} for place in range(30)),
    {"messages": [{"role": "assistant", "content": ""}]},
]


def figures() -> dict[str, object]:
    found = RowStatistics(1)
    for row in SAMPLES:
        texts = row["messages"]
        assert isinstance(texts, list)
        found.add({**row, "messages": [m for m in texts if "\udcff" not in m["content"]]})
    tokens = Lengths()
    for length in (0, 1, 17, 400, 401, 90_000):
        tokens.add(length)
    return {**found.as_dict(), "tokens": tokens.as_dict()}


class Page(HTMLParser):
    """Reads a page, checks that its elements are closed, and keeps text and elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def card() -> str:
    return render_card(REPORT, figures(), SAMPLES, ["Read with care."], "CC-BY-4.0", "Two sets")


def test_page_is_whole_and_needs_nothing_else(card):
    page = Page(card)
    assert card.startswith("<!doctype html>")
    assert not {"script", "link", "img", "iframe", "object"} & set(page.elements)
    assert page.addresses == []
    assert "http://" not in card.replace("http-equiv", "")
    assert "https://" not in card
    assert "url(" not in card
    card.encode("utf-8")


def test_everything_from_the_data_is_escaped(card):
    page = Page(card)
    assert "<script>" not in card
    assert "Be <script>alert(1)</script> kind." in page.text
    assert "b <b>.csv#5" in page.text
    assert "2 rows of <i>b</i> were short" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", card)


def test_counts_add_up_on_the_page(card):
    text = Page(card).text
    for part in ("110", "98", "exact duplicates", "near duplicates", "not sampled", "repeated"):
        assert part in text
    assert "Checked: rows read = quarantined + exact duplicates + near duplicates" in text
    assert "do not add up" not in text


def test_counts_that_do_not_add_up_are_shouted_about():
    report = copy.deepcopy(REPORT)
    report["sources"][0]["used"] = 94  # type: ignore[index]
    card = render_card(report, figures(), [])
    assert "The counts do not add up: a.jsonl." in Page(card).text


def test_count_that_is_new_becomes_a_fate():
    report = copy.deepcopy(REPORT)
    source = report["sources"][0]  # type: ignore[index]
    source["moved_away"], source["used"] = 1, 94
    source["written"]["train"] = 84
    text = Page(render_card(report, figures(), [])).text
    assert "moved away" in text
    assert "do not add up" not in text


def test_figures_notes_reasons_and_licence_are_there(card):
    text = Page(card).text
    for part in (
        *("Two sets", "CC-BY-4.0", "Read with care.", "messages is an empty list"),
        *(
            "Personal data",
            "EMAIL",
            "Columns that were dropped",
            "weather",
            "characters a row",
            "tokens a row",
        ),
        *("Detected in every row", "median", "Licence"),
    ):
        assert part in text
    assert card.count("<svg") == 4


def test_twenty_samples_are_readable(card):
    page = Page(card)
    assert page.elements.count("details") == 20
    for part in (
        "assistant, loss false",
        "rejected answer",
        "500 more characters",
        "Köln",
        "label",
    ):
        assert part in page.text
    assert '<div class="turn tool_call">' in card


def test_missing_licence_is_said():
    assert "No licence is stated" in Page(render_card(REPORT, figures(), [])).text


def test_empty_dataset_has_a_card_too():
    Page(render_card({}, {}, []))
    Page(render_card({"sources": [], "splits": {}}, RowStatistics().as_dict(), [{"messages": []}]))


def test_same_input_gives_the_same_page(card):
    again = render_card(REPORT, figures(), SAMPLES, ["Read with care."], "CC-BY-4.0", "Two sets")
    assert again == card


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 5, "0 %"), (1, 10**6, "under 0.1 %"), (999_999, 10**6, "over 99.9 %"), (1, 3, "33 %")],
)
def test_shares_are_not_rounded_to_nothing(part, whole, text):
    assert share(part, whole) == text


def test_numbers_are_short():
    assert [short_number(n) for n in (7, 950, 1448, 23_000, 2_500_000)] == [
        *("7", "950", "1.4k", "23k", "2.5M")
    ]
