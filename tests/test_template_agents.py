"""Tools in prompts, calls in answers, and calls read back out of a model's words."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_fixtures import TOOLS, chat, labelled_text, small_tokenizer

from swiftcore.errors import DataError
from swiftcore.template import ToolCall, get_template, list_agent_templates, parse_tool_calls

TOKENIZER = small_tokenizer()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
CALLS = st.lists(
    st.tuples(
        st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True),
        st.dictionaries(st.text(max_size=8), JSON, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


def call_message(name: str, arguments: dict) -> dict:
    content = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return {"role": "tool_call", "content": content}


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["hermes", "react_en"]), CALLS, st.sampled_from(["", "I will look."]))
def test_written_calls_are_read_back(agent, calls, text):
    said = [{"role": "assistant", "content": text}] if text else []
    messages = [*chat("q"), *said, *(call_message(*call) for call in calls)]
    template = get_template("chatml", TOKENIZER, agent_template=agent)
    encoded = template.encode({"messages": messages, "tools": TOOLS})
    answer = labelled_text(TOKENIZER, encoded).removesuffix("<|im_end|>\n")
    parsed = template.parse_tool_calls(answer)
    assert parsed.calls == [ToolCall(name, arguments) for name, arguments in calls]
    assert parsed.text == text
    assert not parsed.problems


def test_closing_tag_inside_an_argument_does_not_end_the_call():
    arguments = {"text": "a </tool_call> b <tool_call> c"}
    body = json.dumps({"name": "f", "arguments": arguments})
    parsed = parse_tool_calls(f"hi\n<tool_call>\n{body}\n</tool_call> bye")
    assert parsed.calls == [ToolCall("f", arguments)]
    assert parsed.text == "hi\n bye"


BROKEN = {
    "not JSON": "<tool_call>\n{'name': 'f'}\n</tool_call>",
    "no end": '<tool_call>\n{"name": "f", "arguments": {}}',
    "no name": '<tool_call>{"arguments": {}}</tool_call>',
    "arguments no object": '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
    "empty": "<tool_call></tool_call>",
    "deep": "<tool_call>" + "[" * 100_000,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_calls_are_reported_and_good_ones_kept(text):
    good = '<tool_call>\n{"name": "g", "arguments": {"a": 1}}\n</tool_call>'
    parsed = parse_tool_calls(f"{good}\n{text}")
    assert parsed.calls[0] == ToolCall("g", {"a": 1})
    assert parsed.problems


def test_broken_react_call_is_reported():
    text = "Thought: t\nAction: f\nAction Input: {'city': 'Paris'}\nObservation:"
    parsed = parse_tool_calls(text, "react_en")
    assert parsed.calls == []
    assert "not JSON" in parsed.problems[0]


def test_plain_answers_have_no_calls():
    for agent in list_agent_templates():
        parsed = parse_tool_calls("The answer is 4.", agent)
        assert (parsed.calls, parsed.text, parsed.problems) == ([], "The answer is 4.", [])


@pytest.mark.parametrize("agent", ["hermes", "react_en"])
def test_the_users_system_prompt_is_kept(agent):
    template = get_template("qwen2_5", TOKENIZER, agent_template=agent)
    row = {"messages": chat("q", system="Be a pirate."), "tools": TOOLS}
    assert "Be a pirate." in template.encode(row, mode="infer").text
    callers = get_template("qwen2_5", TOKENIZER, agent_template=agent, default_system="Be terse.")
    assert "Be terse." in callers.encode({"messages": chat("q"), "tools": TOOLS}, mode="infer").text


def test_tools_keep_their_key_order_and_stay_text():
    tool = {"type": "function", "function": {"parameters": {"z": 1, "a": 2}, "name": "<|im_end|>"}}
    template = get_template("chatml", TOKENIZER)
    for tools in ([tool], json.dumps([tool]), [tool["function"]]):
        encoded = template.encode({"messages": chat("q"), "tools": tools}, mode="infer")
        assert '{"parameters": {"z": 1, "a": 2}, "name": "<|im_end|>"}' in encoded.text
        ends = [token for token in encoded.input_ids if token == TOKENIZER.eos_token_id]
        assert len(ends) == 2


def test_react_writes_json_arguments_on_lines_of_their_own():
    messages = [
        *chat("Weather?", "Thought: I should look."),
        call_message("get_weather", {"city": "Paris"}),
        {"role": "tool_response", "content": "21 <|im_end|>"},
        {"role": "assistant", "content": "Final Answer: 21"},
    ]
    template = get_template("chatml", TOKENIZER, agent_template="react_en")
    encoded = template.encode({"messages": messages, "tools": TOOLS})
    assert encoded.text.endswith(
        "assistant\nThought: I should look.\nAction: get_weather\n"
        'Action Input: {"city": "Paris"}\nObservation: 21 <|im_end|>\n'
        "Final Answer: 21<|im_end|>\n"
    )
    trained = labelled_text(TOKENIZER, encoded)
    assert "21 <|im_end|>" not in trained
    assert trained.endswith("Observation:Final Answer: 21<|im_end|>\n")
    assert "Observation:" in template.stop_words


def test_openai_tool_calls_are_tool_call_messages():
    ours = [*chat("q"), call_message("f", {"a": 1}), {"role": "tool_response", "content": "r"}]
    openai = [
        *chat("q"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "r"},
    ]
    template = get_template("chatml", TOKENIZER)
    expected = template.encode({"messages": ours}, mode="infer").input_ids
    assert template.encode({"messages": openai}, mode="infer").input_ids == expected


@pytest.mark.parametrize("content", ['{"name": 1}', '{"name": "f", "arguments": "x"}', "[1]", "x"])
def test_bad_tool_calls_in_rows_are_refused(content):
    messages = [*chat("q"), {"role": "tool_call", "content": content}]
    with pytest.raises(DataError, match="tool_call"):
        get_template("chatml", TOKENIZER).encode({"messages": messages})
