"""Tools, calls and responses as the models' own published chat templates write them.

Each conversation below is written by our template and by the published one; the texts are equal but
for what is mended or excused here, with its reason.
"""

import json
import re
from dataclasses import dataclass

import pytest
from family_fixtures import family_tokenizer
from template_fixtures import shared_file
from tokenizers import AddedToken

from swiftcore.template import get_template
from swiftcore.template.agents import find_agent_template
from swiftcore.template.conversation import read_conversation
from swiftcore.template.registry import find_definition

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "City name"},
                    "days": {"type": "integer", "description": "How many days"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                "required": ["a", "b"],
            },
        },
    },
]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def says(text: str) -> dict:
    return {"role": "assistant", "content": text}


def answered(text: str) -> dict:
    return {"role": "tool", "content": text, "tool_call_id": "call12345"}


def calls(*named: tuple[str, dict], words: str = "") -> dict:
    made = [
        {"type": "function", "id": "call12345", "function": {"name": name, "arguments": arguments}}
        for name, arguments in named
    ]
    return {"role": "assistant", "content": words, "tool_calls": made}


PARIS = ("get_weather", {"city": "Paris"})
SYSTEM = {"role": "system", "content": "Be terse."}
CONVERSATIONS = {
    "offered": [user("Weather?")],
    "system": [SYSTEM, user("Weather?")],
    "call": [SYSTEM, user("Weather?"), calls(PARIS)],
    "asked": [SYSTEM, user("Weather?"), calls(PARIS), answered('{"temp": 21}')],
    "answered": [SYSTEM, user("Weather?"), calls(PARIS), answered("21"), says("21 degrees.")],
    "chain": [
        SYSTEM,
        user("Add."),
        calls(("add", {"a": 1, "b": 2})),
        answered("3"),
        calls(("add", {"a": 3, "b": 3})),
        answered("6"),
        says("6."),
    ],
    "words": [SYSTEM, user("Weather?"), calls(PARIS, words="I will look."), answered("21")],
    "parallel": [
        SYSTEM,
        user("Weather?"),
        calls(PARIS, ("get_weather", {"city": '巴黎 "x"', "days": 3})),
        answered("21"),
        answered("22"),
    ],
    "values": [SYSTEM, user("Weather?"), calls(("get_weather", {"city": "P", "tags": ["a", "b"]}))],
    "later": [
        SYSTEM,
        user("Weather?"),
        calls(PARIS),
        answered("21"),
        says("21 degrees."),
        user("Thanks"),
    ],
}


@dataclass(frozen=True)
class Published:
    """A published template, and what is known to differ in it.

    Args:
        family: our template of that model.
        agent: our agent template.
        mends: (pattern, replacement) in both texts; the reasons stand in docs/agents.md.
        excused: conversations that it writes in another way altogether.
    """

    family: str
    agent: str
    mends: tuple[tuple[str, str], ...] = ()
    excused: tuple[str, ...] = ()


# ms-swift, whose recorded encodings are the measure of hermes, writes no newline between words and
# a call, and two newlines before the tools where there is no system prompt.
_HERMES = (
    (r"(?<=look\.)\n(?=<tool_call>)", ""),
    (r"(?<=<\|im_start\|>system\n)# Tools", "\n\n# Tools"),
)
# When think blocks are written is the family's affair and tested with it.
_NO_THINK = ((r"<think>\n\n</think>\n\n", ""),)
_LLAMA = (
    (r"Environment: ipython\n", ""),
    (r"Today Date: \d\d \w+ \d+", "Today Date: -"),
    (r"<\|start_header_id\|>ipython", "<|start_header_id|>tool"),
    (r"(?<=its value\}\.)Do not", " Do not"),
    # A response is a text, and the template takes texts for lists and prints them as JSON.
    (r'(?<=tool<\|end_header_id\|>\n\n)"((?:[^"\\]|\\.)*)"', lambda f: json.loads(f.group())),
    (r"<_bos>", "<|begin_of_text|>"),
)
PUBLISHED = {
    "qwen2.5/llamacpp__Qwen-Qwen2.5-7B-Instruct": Published("qwen2_5", "hermes", _HERMES),
    "qwen3/llamacpp__Qwen-Qwen3-0.6B": Published("qwen3", "hermes", (*_HERMES, *_NO_THINK)),
    "qwen3/trl__qwen3_instruct_2507": Published("qwen3_nothinking", "hermes", _HERMES),
    "qwen3-coder/vllm__tool_chat_template_qwen3coder": Published("qwen3_coder", "qwen3_coder"),
    "llama3.1/llamacpp__meta-llama-Llama-3.1-8B-Instruct": Published(
        "llama3_2", "llama3", _LLAMA, ("words", "parallel")
    ),
    "deepseek-v3.1/vllm__tool_chat_template_deepseekv31": Published(
        "deepseek_v3_1",
        "deepseek_v3_1",
        (
            (r"\A\n\n<_bos>", "<｜begin▁of▁sentence｜>"),
            # The recorded prompt has single braces and no blank line.
            (r"\{\{additional_tool_calls\}\}", "{additional_tool_calls}"),
            (r"Where:\n\n", "Where:\n"),
            # Its layout's own white space stands in what it renders.
            (r"(?<=separators or spaces)\n", ""),
            (r" {2,}", ""),
        ),
    ),
    "seed-oss/llamacpp__ByteDance-Seed-OSS": Published(
        "seed_oss", "seed_oss", ((r"\['a', 'b'\]", '["a", "b"]'),)
    ),
    "kimi-k2/llamacpp__moonshotai-Kimi-K2": Published(
        "kimi_k2",
        "kimi_k2",
        (
            # It writes a backslash and an n; the model's later template writes a line break. The
            # id of a response is the caller's there, the call's own in what the model has learnt.
            (r"Return of call\d+\\n", "Return of -\n"),
            (r"Return of functions\.\w+:\d+\n", "Return of -\n"),
            (
                r"You are a helpful assistant(?=<)",
                "You are Kimi, an AI assistant created by Moonshot AI.",
            ),
            # Its numbers begin anew with each message; the model's documentation counts on.
            (r"(?<=begin\|>functions\.add:)1", "0"),
        ),
    ),
    "gemma3/vllm__tool_chat_template_gemma3_pythonic": Published(
        "gemma3_text",
        "gemma3",
        ((r"\A<_bos>", "<bos>"), (r"\n\Z", ""), (r"a=1b=2", "a=1, b=2"), (r"a=3b=3", "a=3, b=3")),
        ("words", "parallel", "values"),
    ),
    "gpt-oss/llamacpp__openai-gpt-oss-120b": Published(
        "gpt_oss", "gpt_oss", ((r"Current date: [\d-]+", "Current date: -"),), ("parallel",)
    ),
}


def both(name: str, conversation: str) -> tuple[str, str]:
    """Our text and that of the published template, known differences mended."""
    published = PUBLISHED[name]
    definition = find_definition(published.family)
    tokenizer = family_tokenizer(definition)
    tokens = find_agent_template(published.agent).control_tokens
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens])
    path = shared_file("data", "chat_templates", f"{name}.jinja")
    tokenizer.chat_template = path.read_text(encoding="utf-8")
    row = {"messages": CONVERSATIONS[conversation], "tools": TOOLS}
    is_prompt = row["messages"][-1]["role"] in ("user", "tool")
    options = {"add_non_thinking_prefix": False} if published.family == "qwen3" else {}
    ours = get_template(
        published.family, tokenizer, agent_template=published.agent, today="2026-11-21", **options
    )
    pieces = ours.plan(row, "infer" if is_prompt else "train")
    theirs = get_template("jinja", tokenizer, today="2026-11-21")
    texts = ["".join(piece.text for piece in pieces)]
    texts.append(theirs.written(read_conversation(row), prompt=is_prompt))
    for pattern, replacement in published.mends:
        texts = [re.sub(pattern, replacement, text) for text in texts]
    return texts[0], texts[1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_conversations_equal_those_of_the_published_template(name):
    different = []
    for conversation in CONVERSATIONS:
        if conversation in PUBLISHED[name].excused:
            continue
        ours, theirs = both(name, conversation)
        if ours != theirs:
            pairs = enumerate(zip(ours, theirs, strict=False))
            at = next((at for at, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
            shown = [text[max(0, at - 40) : at + 60] for text in (ours, theirs)]
            different.append((conversation, *shown))
    assert not different
