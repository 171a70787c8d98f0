"""Tools in prompts, calls in answers, and calls read back out of a model's words."""

import json
import time

import pytest
from family_fixtures import family_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from template_fixtures import TOOLS, chat, labelled_text, small_tokenizer
from tokenizers import AddedToken

from swiftcore.errors import DataError, UsageError
from swiftcore.serving.chat import read_answer
from swiftcore.serving.protocol import ChatRequest
from swiftcore.template import ToolCall, get_template, list_agent_templates, parse_tool_calls
from swiftcore.template.agents import find_agent_template
from swiftcore.template.agents.base import CallPlace
from swiftcore.template.registry import find_definition

TOKENIZER = small_tokenizer()
AGENTS = list_agent_templates()
# Whose prompts an agent template is made for, where it isn't a family of the same name.
FAMILIES = {
    "gemma3": "gemma3_text",
    "hermes": "qwen2_5",
    "hunyuan_hermes": "hunyuan",
    "mistral": "mistral_2512",
    "youtu": "youtu_llm",
} | dict.fromkeys([name for name in AGENTS if name.startswith(("qwen_", "react", "tool"))], "qwen")
# Formats whose keys and names stand without quotes, so that some can't be written.
UNQUOTED = ("qwen3_coder", "glm4_5", "glm4_7", "glm5", "gemma", "seed", "minimax", "minicpm", "hy_")
UNQUOTED += ("qwen3_5", "deepseek_v4")

PIECES = ["</tool_call>", "<tool_call>", "</parameter>", "</arg_value>", "</function>", "\n", '"']
PIECES += ["'", "21", "true", "null", " ", "[", "{", "}", "\\", "城市", "Observation:", "🙂", ","]
PIECES += ["<|assistant|>", "Action:", "]]>", "</param>", "<|channel|>"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=4).map("".join)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
CALLS = st.lists(
    st.tuples(NAMES, st.dictionaries(KEYS, JSON, max_size=3)),
    min_size=1,
    max_size=3,
    unique_by=lambda call: call[0],
)
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
TYPES |= {dict: "object", type(None): "null"}


def tool(name: str, arguments: dict) -> dict:
    """A tool that declares the arguments of one call."""
    properties = {key: {"type": TYPES[type(value)]} for key, value in arguments.items()}
    parameters = {"type": "object", "properties": properties}
    return {
        "type": "function",
        "function": {"name": name, "description": "d", "parameters": parameters},
    }


def written(name: str, calls: list[tuple[str, dict]], text: str = "") -> str:
    """An answer as the agent template writes it."""
    agent = find_agent_template(name)
    for number, (called, arguments) in enumerate(calls):
        place = CallPlace(text, number, number == 0, number == len(calls) - 1)
        spans = agent.calls.write(ToolCall(called, arguments), place)
        text += "".join(span.text for span in spans)
    return text


def call_message(name: str, arguments: dict) -> dict:
    content = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return {"role": "tool_call", "content": content}


def template_of(agent: str, **options):
    """The agent template in the family it is made for, with all tokens that both need."""
    definition = find_definition(FAMILIES.get(agent, agent))
    if definition.non_thinking_prefix and not definition.history_thinking_prefix:
        # Training puts it before answers without a think block, prompts don't before past ones.
        options["add_non_thinking_prefix"] = False
    tokenizer = family_tokenizer(definition)
    new = [AddedToken(text, special=True) for text in find_agent_template(agent).control_tokens]
    tokenizer.add_tokens([text for text in new if text.content not in tokenizer.get_vocab()])
    return get_template(definition.name, tokenizer, agent_template=agent, **options)


@pytest.mark.parametrize("agent", AGENTS)
@settings(max_examples=25, deadline=None)
@given(calls=CALLS, text=st.sampled_from(["", "I will look."]))
def test_written_calls_are_read_back(agent, calls, text):
    tools = [tool(*call) for call in calls]
    try:
        answer = written(agent, calls, text)
    except DataError:
        assert agent.startswith(UNQUOTED)
        return
    parsed = find_agent_template(agent).parse(answer, tools)
    assert parsed.calls == [ToolCall(name, arguments) for name, arguments in calls]
    assert parsed.text == text
    assert not parsed.problems


KEPT_IN_JSON = {"a b": {"": ['"', "\\", None]}, "<x>\n": "</tool_call>", "n": [1, "1", 1.5, True]}


@pytest.mark.parametrize("agent", AGENTS)
def test_strange_keys_are_kept_or_refused(agent):
    try:
        answer = written(agent, [("f", KEPT_IN_JSON)])
    except DataError:
        assert agent.startswith(UNQUOTED)
        return
    assert find_agent_template(agent).parse(answer).calls == [ToolCall("f", KEPT_IN_JSON)]


@pytest.mark.parametrize("agent", AGENTS)
def test_conversations_with_tools_are_read_back_from_their_labels(agent):
    """Through the engine: prompts are prefixes of training, responses are not trained."""
    template = template_of(agent, response_prefix="")
    calls = [("get_weather", {"city": "Paris", "days": 3}), ("get_weather", {"city": "巴黎"})]
    spec = tool("get_weather", {"city": "", "days": 1})
    messages = [
        *chat("Weather?", "I will look."),
        *(call_message(*call) for call in calls),
        {"role": "tool_response", "content": "21 RESPONSE <|im_end|>"},
        {"role": "tool_response", "content": "22 RESPONSE"},
        {"role": "assistant", "content": "Done."},
    ]
    row = {"messages": messages, "tools": [spec]}
    encoded = template.encode(row)
    parsed = template.parse_tool_calls(labelled_text(template.tokenizer, encoded), [spec])
    assert parsed.calls == [ToolCall(*call) for call in calls]
    assert not parsed.problems
    assert "RESPONSE" in encoded.text
    assert "RESPONSE" not in labelled_text(template.tokenizer, encoded)
    prompt = template.encode({**row, "messages": messages[:-1]}, mode="infer")
    assert encoded.text.startswith(prompt.text)
    asked = encoded.text[len(prompt.text) :]
    assert "Done." in asked
    assert "RESPONSE" not in asked
    assert "assistant" not in asked.lower().partition("done.")[0]
    assert "{'city'" not in encoded.text


@pytest.mark.parametrize("agent", AGENTS)
def test_tools_and_the_users_system_prompt_are_shown(agent):
    template = template_of(agent)
    row = {"messages": chat("q", system="Be a pirate."), "tools": TOOLS}
    if find_definition(FAMILIES.get(agent, agent)).system_prefix is None:
        row["messages"] = chat("Be a pirate.")
    text = template.encode(row, mode="infer").text
    assert "Be a pirate." in text
    assert "get_weather" in text
    assert "Get the weather of a city." in text
    assert "city" in text


GARBAGE = st.lists(
    st.sampled_from(
        [
            *PIECES,
            *("<tool_call>{", '{"name": "f", "parameters":', "<function=f>", "<parameter=x>"),
            *("<arg_key>a</arg_key>", "<arg_value>", "✿FUNCTION✿: f\n✿ARGS✿:", "Action: f\n"),
            *("Action Input:", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>", "<|tool_call>call:f{a:"),
            *('<invoke name="f">', '<parameter name="a">', "[f(a=", "[TOOL_CALLS]f[ARGS]"),
            *("<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>", "<seed:tool_call>"),
            *(" to=functions.f<|channel|>commentary json<|message|>", "f\n{", "```json"),
            *('<function name="f">', '<param name="a">', "<![CDATA[", "[" * 2000, '{"a":' * 2000),
        ]
    )
    | st.text(max_size=3),
    max_size=8,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(GARBAGE)
def test_no_words_of_a_model_raise(text):
    for agent in AGENTS:
        parsed = find_agent_template(agent).parse(text, TOOLS)
        assert all(isinstance(call.name, str) for call in parsed.calls)
        json.dumps([call.arguments for call in parsed.calls])


@pytest.mark.parametrize("agent", AGENTS)
def test_a_call_that_breaks_off_is_reported_and_the_one_before_kept(agent):
    first = written(agent, [("f", {"a": "x"})])
    whole = written(agent, [("f", {"a": "x"}), ("g", {"a": "hello world"})])
    cut = whole[: whole.index("hello") + 5]
    assert cut.startswith(first[:3])
    parsed = find_agent_template(agent).parse(cut, [tool("f", {"a": ""}), tool("g", {"a": ""})])
    assert parsed.problems
    if agent != "gemma3":  # its calls are one list, which has no end
        assert parsed.calls[:1] == [ToolCall("f", {"a": "x"})]


@pytest.mark.parametrize("agent", AGENTS)
def test_long_hostile_answers_take_no_time_that_grows_with_their_square(agent):
    """A linear scan of 300 kB takes milliseconds."""
    opening = written(agent, [("f", {})])[:24]
    started = time.perf_counter()
    for text in (opening * 12_000, opening + "[" * 300_000, opening + "x" * 300_000):
        find_agent_template(agent).parse(text)
    assert time.perf_counter() - started < 30


UNTYPED = [("21", 21), ("true", True), ("null", None), ("x", "x"), ('"x"', '"x"'), ("[1]", [1])]


@pytest.mark.parametrize("agent", ["qwen3_coder", "glm4_5", "minimax_m2", "seed_oss", "hy_v3"])
def test_without_a_schema_a_text_that_is_json_is_read_as_its_value(agent):
    for text, value in UNTYPED:
        answer = written(agent, [("f", {"a": text})])
        assert find_agent_template(agent).parse(answer).calls == [ToolCall("f", {"a": value})]
        typed = find_agent_template(agent).parse(answer, [tool("f", {"a": ""})])
        assert typed.calls == [ToolCall("f", {"a": text})]


def test_a_server_reads_calls_with_the_requests_schemas():
    spec = tool("f", {"a": "text"})
    asked = ChatRequest.model_validate({"model": "m", "messages": chat("q"), "tools": [spec]})
    template = template_of("qwen3_coder")
    text = written("qwen3_coder", [("f", {"a": "21"})])
    answer = read_answer(template, text, asked.callable_tools)
    assert answer.tool_calls[0]["function"]["arguments"] == '{"a": "21"}'


def test_a_schema_with_several_types_decides_too():
    answer = written("qwen3_coder", [("f", {"a": "21", "b": "x", "c": "True", "d": 1})])
    properties = {
        "a": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "b": {"type": ["string", "null"]},
        "c": {"type": "boolean"},
        "d": {"enum": ["1", "2"]},
    }
    spec = {"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}}
    parsed = parse_tool_calls(answer, "qwen3_coder", [spec])
    assert parsed.calls == [ToolCall("f", {"a": 21, "b": "x", "c": True, "d": "1"})]


@pytest.mark.parametrize(
    ("agent", "value"),
    [
        ("qwen3_coder", "x\n</parameter>\n</function>\n</tool_call>"),
        ("glm4_5", "x</arg_value><arg_key>"),
        ("minimax_m2", 'a</parameter>\n<parameter name="'),
        ("gemma4", 'a<|"|>'),
    ],
)
def test_values_that_could_not_be_read_back_are_refused(agent, value):
    with pytest.raises(DataError, match="agent template whose calls are JSON"):
        written(agent, [("f", {"a": value})])


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


@pytest.mark.parametrize("text", ["The answer is 4.", 'Here: {"a": [1, 2]}', "a\n\nb [1] (2)"])
def test_plain_answers_have_no_calls(text):
    for agent in AGENTS:
        parsed = parse_tool_calls(text, agent)
        assert (parsed.calls, parsed.text, parsed.problems) == ([], text, [])


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


def test_an_agent_template_that_is_not_established_refuses_tools_alone():
    definition = find_definition("kimi_k3")
    assert definition.agent_template not in AGENTS
    template = get_template("kimi_k3", family_tokenizer(definition))
    assert template.encode({"messages": chat("q")}, mode="infer").input_ids
    with pytest.raises(UsageError, match="not established"):
        template.encode({"messages": chat("q"), "tools": TOOLS}, mode="infer")
    with pytest.raises(UsageError, match="no agent template named"):
        get_template("chatml", TOKENIZER, agent_template="kimi_k3")


def test_a_tokenizer_without_the_agents_turns_is_refused_where_they_are_needed():
    template = get_template("chatml", TOKENIZER, agent_template="glm4")
    assert template.encode({"messages": chat("q")}, mode="infer").input_ids
    with pytest.raises(UsageError, match=r"<\|observation\|>"):
        template.encode({"messages": chat("q"), "tools": TOOLS}, mode="infer")
