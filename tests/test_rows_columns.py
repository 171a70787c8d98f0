"""Columns: which one means what, and what is dropped, counted or read beside the messages."""

import re
from pathlib import Path

import pytest
from normalizing import kept, why_rejected

from swiftcore.data import RejectedRow, RowNormalizer

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}
TURN = {"messages": [USER, ASSISTANT]}


@pytest.mark.parametrize(
    "row",
    [
        {"query": None, "prompt": "q", "response": "r"},
        {"prompt": "q", "question": None, "answer": None, "solution": "r"},
        {"messages": None, "conversations": [USER, ASSISTANT]},
        {"Query": "q", "QUERY": None, "response": "r"},
    ],
)
def test_a_null_column_is_no_rival(row):
    assert kept(row) == TURN


def test_rivals_are_named_and_not_guessed():
    normalizer = RowNormalizer()
    row = normalizer.standard_row({"problem": "q", "solution": "a", "answer": "b"})
    assert row == {"messages": [USER]}
    assert normalizer.clashes == {"response": ["solution", "answer"]}
    assert normalizer.unused_columns == {"solution": 1, "answer": 1}


def test_two_columns_renamed_to_one_name_are_no_row_unless_one_is_null():
    columns = {"a": "query", "b": "query"}
    assert "renames both a and b to query" in why_rejected({"a": "q", "b": "x"}, columns=columns)
    assert kept({"a": "q", "b": None, "response": "r"}, columns=columns) == TURN


def test_a_renamed_column_wins_unless_it_is_null():
    columns = {"a": "query"}
    assert kept({"a": "q", "query": "old", "response": "r"}, columns=columns) == TURN
    assert kept({"a": None, "query": "q", "response": "r"}, columns=columns) == TURN


def test_every_dropped_column_is_counted_for_standard_rows_only():
    normalizer = RowNormalizer({"A": "query"})
    normalizer.standard_row({"a": "q", "response": "r", "id": 1})
    normalizer.standard_row({"a": "q", "query": "old", "response": "r", "id": None})
    with pytest.raises(RejectedRow):
        normalizer.standard_row({"id": 1})
    assert normalizer.unused_columns == {"id": 2, "query": 1}
    assert normalizer.missing_columns() == []
    assert {"query", "response", "id"} <= set(normalizer.seen_columns())


def test_ever_new_columns_cost_no_memory_and_no_count():
    normalizer = RowNormalizer()
    for number in range(3000):
        normalizer.standard_row({"query": "q", f"extra{number}": 1, "id": 1})
    assert normalizer.unused_columns["id"] == 3000
    assert len(normalizer.unused_columns) == 3001


def test_a_system_prompt_that_loses_is_said():
    normalizer = RowNormalizer()
    row = {"messages": [{"role": "system", "content": "S"}, USER, ASSISTANT], "system": "other"}
    assert normalizer.standard_row(row)["messages"][0]["content"] == "S"
    assert list(normalizer.notes) == ["the system column is left out: the messages bring their own"]


def test_a_list_is_several_answers_to_a_question_and_paragraphs_without_one():
    normalizer = RowNormalizer()
    assert normalizer.standard_row({"query": "q", "answers": ["r", "s"]}) == TURN
    assert normalizer.notes == {"only the first of several responses is used": 1}
    document = {"title": "t", "content": ["one", "two"]}
    assert kept(document) == {"messages": [{"role": "assistant", "content": "one\ntwo"}]}


def test_a_prompt_of_messages_is_continued():
    row = {"prompt": [USER], "completion": [ASSISTANT]}
    assert kept(row) == TURN


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (True, True),
        ("true", True),
        ("False", False),
        ("1", 1),
        ("-0.5", -0.5),
        (0.7, 0.7),
        ([1, 3], [1, 3]),
        ("[1, 3]", [1, 3]),
        ("sports", "sports"),
        ("007", "007"),
    ],
)
def test_labels_that_a_table_stored_as_text_are_read(given, label):
    found = kept(TURN | {"label": given})["label"]
    assert (found, type(found)) == (label, type(label))


def test_settings_and_channels_of_a_row():
    row = TURN | {"chat_template_kwargs": '{"enable_thinking": true}', "channel": 3}
    assert kept(row) == TURN | {"chat_template_kwargs": {"enable_thinking": True}, "channel": "3"}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"label": {"a": 1}}, "label is an object"),
        ({"label": 2**70}, "label is a number out of range"),
        ({"margin": "much"}, "margin is text, expected a number"),
        ({"margin": True}, "margin is true or false"),
        ({"channel": ["a"]}, "channel is a list"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs is a list"),
        ({"tools": [3]}, "tools holds something that is no object"),
    ],
)
def test_columns_without_meaning_are_quarantined(columns, reason):
    assert reason in why_rejected(TURN | columns)


def test_tools_as_a_python_literal_become_json():
    assert kept(TURN | {"tools": "[{'name': 'f', 'a': None}]"})["tools"] == (
        '[{"name": "f", "a": null}]'
    )


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"context": "q", "continuation": "r"}, {"context": "query", "continuation": "response"}),
        ({"paragraphs": ["a", "b"]}, {"paragraphs": "text"}),
        ({"premise": "a", "hypothesis": "b"}, {"premise": "instruction", "hypothesis": "input"}),
        (
            {"question": [[USER]], "function": [{"name": "f"}]},
            {"question": "messages", "function": "tools"},
        ),
    ],
)
def test_a_reason_names_the_mapping_that_makes_the_row_good(row, columns):
    reason = why_rejected(row)
    first = next(iter(columns.items()))
    assert "{}: {}".format(*map(repr, first)) in reason
    assert kept(row, columns=columns)["messages"]


def test_a_document_of_rows_is_told_from_a_row():
    examples = [{"input": "a", "target": "b"}, {"input": "c", "target": "d"}]
    assert "examples is a list of rows" in why_rejected({"canary": "x", "examples": examples})


def test_the_example_of_the_docs_is_true():
    page = Path(__file__).parents[1] / "docs" / "row-formats.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, page.name, "exec"), {})
