"""Contents of messages: OpenAI parts, Anthropic blocks, v1 values, calls, reasoning, weights."""

import json

import pytest
from normalizing import kept, why_rejected

from swiftcore.data import RowNormalizer

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}
CALL = '{"name": "f", "arguments": {"b": 1, "a": 2}}'


def _messages(*messages: dict) -> list:
    return kept({"messages": list(messages)})["messages"]


def _user(*parts: dict) -> dict:
    return {"role": "user", "content": list(parts)}


def _openai_call(call_id: str, name: str, arguments: object = "{}") -> dict:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [{"type": "input_text", "text": "ab"}],
        [{"type": "text", "value": "ab"}],
    ],
)
def test_text_parts_are_joined_as_they_are(parts):
    assert _messages(_user(*parts), ASSISTANT)[0] == {"role": "user", "content": "ab"}


@pytest.mark.parametrize(
    ("part", "column", "medium"),
    [
        ({"type": "image", "image": "a.jpg"}, "images", {"bytes": None, "path": "a.jpg"}),
        ({"type": "image_url", "image_url": "u"}, "images", {"bytes": None, "path": "u"}),
        ({"type": "image_url", "image_url": {"url": "u"}}, "images", {"bytes": None, "path": "u"}),
        ({"type": "image_url", "value": "a.jpg"}, "images", {"bytes": None, "path": "a.jpg"}),
        (
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "QUI="},
            },
            "images",
            {"bytes": None, "path": "data:image/png;base64,QUI="},
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "u"}},
            "images",
            {"bytes": None, "path": "u"},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QUI=", "format": "wav"}},
            "audios",
            "data:audio/wav;base64,QUI=",
        ),
        ({"type": "audio_url", "audio_url": {"url": "a.mp3"}}, "audios", "a.mp3"),
        ({"type": "video", "video": "v.mp4"}, "videos", "v.mp4"),
        ({"type": "video", "video": ["1.jpg", "2.jpg"]}, "videos", ["1.jpg", "2.jpg"]),
    ],
)
def test_a_media_part_becomes_a_tag_and_an_entry_of_its_column(part, column, medium):
    row = kept({"messages": [_user({"type": "text", "text": "see "}, part), ASSISTANT]})
    assert row["messages"][0]["content"] == f"see <{column[:-1]}>"
    assert row[column] == [medium]


def test_a_media_part_without_content_takes_the_entry_of_the_column():
    message = _user({"type": "image"}, {"type": "text", "text": "what"})
    row = kept({"messages": [message, ASSISTANT], "images": ["a.jpg"]})
    assert row["messages"][0]["content"] == "<image>what"
    assert row["images"] == [{"bytes": None, "path": "a.jpg"}]
    assert "no column images" in why_rejected({"messages": [message, ASSISTANT]})


def test_parts_and_a_column_that_both_bring_images_have_no_known_order():
    row = {"messages": [_user({"type": "image", "image": "a.jpg"}), ASSISTANT], "images": ["b.jpg"]}
    assert "images is given although content parts bring images too" in why_rejected(row)


def test_anthropic_blocks_become_calls_and_responses_in_the_order_of_the_calls():
    messages = _messages(
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"b": 1, "a": 2}},
                {"type": "tool_use", "id": "2", "name": "g", "input": {}},
            ],
        },
        _user(
            {"type": "tool_result", "tool_use_id": "2", "content": "second"},
            {
                "type": "tool_result",
                "tool_use_id": "1",
                "content": [{"type": "text", "text": "first"}],
            },
        ),
        ASSISTANT,
    )
    assert messages == [
        USER,
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nI look."},
        {"role": "tool_call", "content": CALL},
        {"role": "tool_call", "content": '{"name": "g", "arguments": {}}'},
        {"role": "tool_response", "content": "first"},
        {"role": "tool_response", "content": "second"},
        ASSISTANT,
    ]


def test_openai_responses_follow_the_order_of_parallel_calls():
    calls = [_openai_call("1", "f"), _openai_call("2", "g")]
    messages = _messages(
        USER,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "2", "content": "second"},
        {"role": "tool", "tool_call_id": "1", "content": "first"},
        ASSISTANT,
    )
    assert [message["content"] for message in messages[3:5]] == ["first", "second"]


def test_responses_with_unknown_ids_stay_where_they_are():
    calls = [_openai_call("1", "f"), _openai_call("2", "g")]
    answers = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("2", "x")]
    messages = _messages(USER, {**ASSISTANT, "tool_calls": calls}, *answers, ASSISTANT)
    assert [message["content"] for message in messages[4:6]] == ["2", "x"]


def test_the_older_function_call_and_its_role_are_read():
    called = {"name": "f", "arguments": '{"b": 1, "a": 2}'}
    messages = _messages(
        USER,
        {"role": "assistant", "content": None, "function_call": called},
        {"role": "function", "name": "f", "content": "ok"},
        ASSISTANT,
    )
    assert messages[1:3] == [
        {"role": "tool_call", "content": CALL},
        {"role": "tool_response", "content": "ok"},
    ]


def test_v1_values_are_read():
    messages = _messages(
        {"role": "user", "content": [{"type": "text", "value": "q"}], "loss_weight": 0.0},
        {
            "role": "assistant",
            "content": [
                {"type": "reasoning", "value": "hm"},
                {"type": "text", "value": "r"},
                {"type": "tool_call", "value": CALL},
            ],
            "loss_weight": 1.0,
        },
    )
    assert messages == [
        USER,
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nr"},
        {"role": "tool_call", "content": CALL},
    ]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_stands_before_the_answer_as_chat_templates_write_it(key):
    thought = "<think>\nhm\n</think>\n\n"
    assert _messages(USER, {**ASSISTANT, key: "\nhm\n"})[1]["content"] == f"{thought}r"
    own = {"role": "assistant", "content": "<think>mine</think>r"}
    assert _messages(USER, {**own, key: "hm"})[1] == own
    calling = {
        "role": "assistant",
        "content": None,
        key: "hm",
        "tool_calls": [_openai_call("", "f")],
    }
    assert [message["role"] for message in _messages(USER, calling)] == [
        "user",
        "assistant",
        "tool_call",
    ]


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ({"loss_weight": 0.0}, {"loss": False}),
        ({"loss_weight": 1.0}, {}),
        ({"loss_weight": 0.5}, {"loss_scale": 0.5}),
        ({"weight": 0}, {"loss": False}),
        ({"weight": 1}, {}),
        ({"loss": 1.0}, {"loss": True}),
        ({"loss": True, "loss_weight": 0}, {"loss": True}),
        ({"loss_scale": 2}, {"loss_scale": 2}),
    ],
)
def test_weights_of_answers_are_kept(flags, kept):
    assert _messages(USER, {**ASSISTANT, **flags})[1] == {**ASSISTANT, **kept}


def test_developer_is_the_system_and_a_system_of_parts_is_text():
    assert _messages({"role": "developer", "content": "S"}, USER)[0]["role"] == "system"
    row = {"system": [{"type": "text", "text": "S"}], "messages": [USER, ASSISTANT]}
    assert kept(row)["messages"][0] == {"role": "system", "content": "S"}


def test_a_dialogue_alone_in_a_list_is_that_dialogue():
    assert kept({"messages": [[USER, ASSISTANT]]})["messages"] == [USER, ASSISTANT]
    assert "holds 2 dialogues" in why_rejected({"messages": [[USER], [USER]]})


def test_a_result_that_is_data_stays_data():
    data = [{"type": "image", "width": 3}, {"b": 1, "a": None}]
    message = {"role": "tool", "content": data}
    assert json.loads(_messages(USER, ASSISTANT, message)[2]["content"]) == data


def test_keys_that_are_left_out_are_counted():
    normalizer = RowNormalizer()
    for name in ("bob", None, "eve"):
        normalizer.standard_row({"messages": [{**USER, "name": name}, ASSISTANT]})
    assert normalizer.notes == {"message key 'name' is left out": 2}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (_user({"type": "tool_use", "name": "f", "input": {}}), "a tool call in a user message"),
        (
            {"role": "assistant", "content": [{"type": "tool_result", "content": "x"}]},
            "a tool result in a assistant message",
        ),
        (_user({"type": "redacted_thinking", "data": "x"}), "'redacted_thinking' is not supported"),
        (_user({"text": "no type"}), "no object with a type"),
        (_user({"type": "image", "source": {"file_id": "1"}}), "neither url nor data"),
        ({**USER, "loss_weight": 1.0}, "only answers are trained on"),
        ({**ASSISTANT, "loss_scale": float("nan")}, "out of range"),
        ({**ASSISTANT, "tool_calls": [_openai_call("1", "f", "[1]")]}, "are a list"),
        ({**ASSISTANT, "tool_calls": [_openai_call("1", "f", "{")]}, "not valid JSON"),
        ({**USER, "content": "\ud800"}, "messages[2] holds a lone surrogate"),
    ],
)
def test_what_text_cannot_hold_is_quarantined_with_the_place(message, reason):
    assert reason in why_rejected({"messages": [USER, message]})
