"""Row formats: every accepted spelling becomes the one standard row; the rest says why not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from normalizing import kept, why_rejected

from swiftcore.data import normalize_rows
from swiftcore.errors import DataError, UsageError

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}
SYSTEM = {"role": "system", "content": "S"}
TURN = [USER, ASSISTANT]
CALL = '{"name": "f", "arguments": {"b": 1, "a": 2}}'


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": TURN}, TURN),
        (TURN, TURN),
        ({"Messages": TURN, "id": 3}, TURN),
        ({"messages": TURN, "system": "S"}, [SYSTEM, *TURN]),
        ({"messages": [SYSTEM, *TURN], "system": "other"}, [SYSTEM, *TURN]),
        ({"messages": json.dumps(TURN)}, TURN),
        ({"messages": str(TURN)}, TURN),
        ({"messages": [{**USER, "name": "bob"}, ASSISTANT]}, TURN),
        ({"messages": [{**USER, "content": [{"type": "text", "text": "q"}]}, ASSISTANT]}, TURN),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]}, TURN),
        ({"conversation": [{"from": "user", "value": "q"}, {"from": "bot", "value": "r"}]}, TURN),
        ({"conversation": [{"human": "q", "assistant": "r"}] * 2}, TURN * 2),
        ({"system_prompt": "S", "conversation": [{"human": "q", "gpt": "r"}]}, [SYSTEM, *TURN]),
        ({"instruction": "q", "input": "", "output": "r"}, TURN),
        ({"instruction": "", "input": "q", "output": "r"}, TURN),
        ({"Instruction": "q", "Input": None, "Output": "r"}, TURN),
        ({"query": "q", "response": "r", "history": [], "system": None}, TURN),
        ({"query": "q", "response": "r", "history": [["q", "r"]]}, TURN * 2),
        ({"query": "q", "response": "r", "history": '[["q", null]]'}, [USER, *TURN]),
        ({"query": "q", "response": "r", "history": "[['q', 'r']]"}, TURN * 2),
        ({"QUESTION": "q", "Answer": "r"}, TURN),
        ({"query": "q", "prompt": "p", "response": "r", "answer": "a"}, TURN),
        ({"query": "q", "response": ["r", "other"]}, TURN),
        ({"text": "r"}, [ASSISTANT]),
        ({"response": "r"}, [ASSISTANT]),
        ({"query": "q"}, [USER]),
        ({"question": "q", "answer": 5}, [USER, {**ASSISTANT, "content": "5"}]),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_a_format_becomes_messages(row, messages):
    assert kept(row) == {"messages": messages}


def test_instruction_and_input_are_joined_with_a_newline():
    row = {"instruction": "do", "input": "x", "output": "r"}
    assert kept(row)["messages"][0]["content"] == "do\nx"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("function_call", "tool_call"),
        ("function-call", "tool_call"),
        ("observation", "tool_response"),
        ("observations", "tool_response"),
        ("function_response", "tool_response"),
        ("tool", "tool"),
    ],
)
def test_tool_roles_have_one_name(name, role):
    row = {"messages": [USER, {"role": name, "content": CALL}, ASSISTANT]}
    assert kept(row)["messages"][1] == {"role": role, "content": CALL}


def test_openai_tool_calls_become_tool_call_messages_with_their_key_order():
    call = {"id": "1", "type": "function"}
    first = {**call, "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}
    second = {**call, "function": {"name": "g", "arguments": {}}}
    row = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [first, second], "loss": False},
            {"role": "tool", "tool_call_id": "1", "content": {"z": 1, "a": [2]}},
            {"role": "assistant", "content": "r", "tool_calls": []},
        ]
    }
    assert kept(row)["messages"] == [
        USER,
        {"role": "tool_call", "content": CALL, "loss": False},
        {"role": "tool_call", "content": '{"name": "g", "arguments": {}}', "loss": False},
        {"role": "tool", "content": '{"z": 1, "a": [2]}'},
        ASSISTANT,
    ]


def test_loss_flags_of_messages_are_kept():
    row = {"messages": [USER, {**ASSISTANT, "loss": False, "loss_scale": 0.5, "weight": 1}]}
    assert kept(row)["messages"][1] == {**ASSISTANT, "loss": False, "loss_scale": 0.5}


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_are_json_text_with_the_key_order_of_the_source(as_text):
    tools = [{"type": "function", "function": {"name": "f", "description": "é", "a": 1}}]
    text = json.dumps(tools, ensure_ascii=False)
    assert kept({"messages": TURN, "tools": text if as_text else tools})["tools"] == text
    assert kept({"messages": TURN, "tools": [json.dumps(tools[0])]})["tools"] == text
    assert "tools" not in kept({"messages": TURN, "tools": "[]" if as_text else []})


def test_preference_and_label_columns_are_kept_and_others_only_on_request():
    row = {
        "messages": TURN,
        "rejected_response": "bad",
        "label": True,
        "margin": 0.5,
        "channel": "c",
        "solution": "42",
        "extra": 1,
        "empty": None,
    }
    columns = {"messages", "rejected_response", "label", "margin", "channel"}
    assert set(kept(row)) == columns
    assert set(kept(row, remove_unused_columns=False)) == columns | {"solution", "extra"}


def test_a_solution_answers_a_query_and_stays_a_column_for_rewards():
    row = {"query": "q", "solution": "r"}
    assert kept(row, remove_unused_columns=False) == {"messages": TURN, "solution": "r"}
    assert kept(row) == {"messages": TURN}


def test_rejected_dialogues_and_samples_are_made_standard_too():
    sharegpt = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "bad"}]
    bad = [USER, {"role": "assistant", "content": "bad"}]
    row = {"messages": TURN, "rejected_messages": sharegpt, "negative_messages": [sharegpt]}
    standard = {
        "messages": [SYSTEM, *TURN],
        "rejected_messages": [SYSTEM, *bad],
        "negative_messages": [bad],
    }
    assert kept(row | {"system": "S"}) == standard
    pair = {"query": "q", "response": "r", "rejected_messages": sharegpt, "system": "S"}
    assert kept(pair)["rejected_messages"] == standard["rejected_messages"]
    listed = {"messages": TURN, "rejected_response": [bad[1]]}
    assert kept(listed)["rejected_response"] == [bad[1]]


def test_media_columns_become_lists_and_boxes_are_ordered():
    row = {"query": "q", "response": "r", "image": "a.jpg", "video": "b.mp4"}
    row["objects"] = {"bbox": [[5, 1, 2, 3]], "ref": ["x"]}
    assert kept(row) == {
        "messages": TURN,
        "images": [{"bytes": None, "path": "a.jpg"}],
        "videos": ["b.mp4"],
        "objects": {"ref": ["x"], "bbox": [[2, 1, 5, 3]]},
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"foo": 1}, "no column holds a conversation: columns are foo"),
        ({}, "columns are none"),
        (5, "the row is a number"),
        ([1, 2], "the row is a list"),
        ({"messages": []}, "empty list"),
        ({"messages": None}, "messages is null"),
        ({"messages": "hello"}, "neither JSON nor"),
        ({"messages": ["hi"]}, "messages[1] is text"),
        ({"messages": [USER, {"role": "alien", "content": "x"}]}, "messages[2]: unknown role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[1]: user message without"),
        ({"messages": [{"role": "user", "content": True}]}, "messages[1] is true or false"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[1] is an object"),
        ({"messages": [{**USER, "content": [{"type": "audio"}]}]}, "and no column audios"),
        ({"messages": [{**USER, "content": [{"type": "file"}]}]}, "type 'file' is not supported"),
        ({"messages": [{"role": "user", "content": " "}]}, "no text"),
        ({"messages": [{**USER, "loss": "no"}]}, "loss is text"),
        ({"messages": [{**USER, "loss_scale": -1}]}, "loss_scale"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "NUL"),
        ({"messages": [{"a": 1}]}, "has no role: keys are a"),
        ({"messages": [{**USER, "tool_calls": [{}]}]}, "no function name"),
        ({"messages": [{"role": "tool_call", "content": '{"name": '}]}, "not valid JSON"),
        ({"conversation": TURN, "conversations": TURN}, "could both be the messages"),
        ({"messages": TURN, "tools": "[{"}, "tools is not valid JSON"),
        ({"messages": TURN, "tools": "3"}, "tools is a number"),
        ({"messages": TURN, "rejected_response": None}, "rejected_response is null"),
        ({"messages": TURN, "rejected_response": "r"}, "equals the answer"),
        ({"messages": TURN, "rejected_response": [ASSISTANT]}, "equals the answer"),
        ({"messages": TURN, "objects": {"bbox": [[1, 2, 3]]}}, "length 3"),
        ({"query": "q", "response": []}, "empty list"),
        ({"query": "q", "response": {"a": 1}}, "response is an object"),
        ({"query": "q", "response": "r", "history": [["a"]]}, "history[1]"),
        ({"query": "q", "response": "r", "history": "x ="}, "history is text"),
        ({"solution": "a", "answer": "b"}, "no column holds"),
    ],
)
def test_a_row_without_standard_form_is_quarantined_with_the_reason(row, reason):
    assert reason in why_rejected(row)


def test_good_and_bad_rows_add_up_and_keep_their_place():
    rows, quarantine = normalize_rows([{"foo": 1}, {"query": "q", "response": "r"}, 7])
    assert len(rows) == 1
    assert [(bad.index, bad.row) for bad in quarantine] == [(0, {"foo": 1}), (2, 7)]


def test_strict_raises_at_the_first_bad_row():
    with pytest.raises(DataError) as caught:
        normalize_rows([{"query": "q", "response": "r"}, {"foo": 1}], strict=True)
    assert caught.value.where == "row 1"


def test_columns_are_renamed_first_and_in_any_case():
    assert kept({"A": "q", "B": "r"}, columns={"a": "query", "b": "response"}) == {"messages": TURN}
    taken = {"a": "q", "query": "old", "response": "r"}
    assert kept(taken, columns={"a": "query"}) == {"messages": TURN}


def test_a_rename_to_a_name_nothing_reads_is_a_usage_error():
    with pytest.raises(UsageError) as caught:
        normalize_rows([], columns={"a": "querry"})
    assert "query" in (caught.value.expected or "")


def test_the_rows_given_are_not_changed():
    row = {"messages": [{"from": "human", "value": "q", "x": 1}], "tools": [{"name": "f"}]}
    before = json.dumps(row)
    normalize_rows([row], columns={"tools": "tools"})
    assert json.dumps(row) == before


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)
KEYS = st.sampled_from(
    [
        *("role", "content", "from", "value", "human", "gpt"),
        *("loss", "tool_calls", "function", "name", "arguments"),
    ]
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["user", "assistant", "tool_call", "[{", '[["a", "b"]]']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
COLUMNS = st.sampled_from(
    [
        *("messages", "conversations", "system", "query", "response", "history", "solution"),
        *("instruction", "input", "output", "text", "tools", "objects", "images", "foo"),
        *("rejected_response", "rejected_messages", "positive_messages"),
    ]
)


@given(rows=st.lists(st.dictionaries(COLUMNS, VALUES, max_size=4) | VALUES, max_size=5))
def test_any_json_value_is_either_standard_or_quarantined(rows):
    standard, quarantine = normalize_rows(rows)
    assert len(standard) + len(quarantine) == len(rows)
    for row in standard:
        assert all(isinstance(message["content"], str) for message in row["messages"])
    again, bad = normalize_rows(standard)
    assert not bad
    assert again == standard
