"""Bad rows, templates and tokenizers: each is repaired as documented or refused with its place."""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from template_fixtures import QWEN2_5_LIKE, TOOLS, chat, real_tokenizer, small_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from swiftcore.errors import DataError, SwiftError, UsageError
from swiftcore.template import get_template

TOKENIZER = small_tokenizer(QWEN2_5_LIKE)
NAMES = ("qwen2_5", "qwen3", "jinja")


def user(content):
    return {"role": "user", "content": content}


def answer(content, **more):
    return {"role": "assistant", "content": content, **more}


def call(content):
    return {"role": "tool_call", "content": content}


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


REFUSED = {
    # what: (row, field, words of the message)
    "no row": (["x"], "row", "no object"),
    "no messages": ({}, "messages", "no messages"),
    "messages as text": ({"messages": "hi"}, "messages", "no messages"),
    "message as text": ({"messages": ["hi"]}, "messages[0]", "no object"),
    "unknown role": (
        {"messages": [user("a"), {"role": "bot", "content": "x"}]},
        "[1].role",
        "role",
    ),
    "no role": ({"messages": [{"content": "x"}]}, "messages[0].role", "unknown role"),
    "two users": ({"messages": [user("a"), user("b")]}, "messages[1].role", "two user messages"),
    "late system": (
        {"messages": [user("a"), {"role": "system", "content": "s"}]},
        "messages[1].role",
        "must come first",
    ),
    "only a system": (
        {"messages": [{"role": "system", "content": "s"}]},
        "messages",
        "only a system message",
    ),
    "None from the user": ({"messages": [user(None)]}, "messages[0].content", "no text content"),
    "None from the model": (
        {"messages": [user("a"), answer(None)]},
        "messages[1].content",
        "no text content",
    ),
    "a number": ({"messages": [user(7)]}, "messages[0].content", "no text content"),
    "response without call": (
        {"messages": [user("a"), {"role": "tool_response", "content": "x"}]},
        "messages[1].role",
        "tool response without a call",
    ),
    "call that is no JSON": (
        {"messages": [user("a"), call("f(1)")]},
        "messages[1].content",
        "tool_call is not JSON",
    ),
    "arguments as a list": (
        {"messages": [user("a"), call('{"name": "f", "arguments": [1]}')]},
        "messages[1].content",
        "no JSON object",
    ),
    "NaN in arguments": (
        {"messages": [user("a"), call('{"name": "f", "arguments": {"x": NaN}}')]},
        "messages[1].content",
        "not JSON",
    ),
    "deep arguments": (
        {"messages": [user("a"), call(f'{{"name": "f", "arguments": {deep(400)}}}')]},
        "messages[1].content",
        "nested too deeply",
    ),
    "very deep arguments": (
        {"messages": [user("a"), call(f'{{"name": "f", "arguments": {deep(100_000)}}}')]},
        "messages[1].content",
        "not JSON",
    ),
    "lists of lists of calls": (
        {"messages": [user("a"), call("[" * 200 + "]" * 200)]},
        "messages[1].content",
        "no name",
    ),
    "tools that are no JSON": ({"messages": chat("a"), "tools": "{bad"}, "tools", "not JSON"),
    "tools as a number": ({"messages": chat("a"), "tools": 7}, "tools", "not a list"),
    "tool as words": ({"messages": chat("a"), "tools": ["x"]}, "tools[0]", "not JSON"),
    "tool without name": (
        {"messages": chat("a"), "tools": [{"description": "x"}]},
        "tools[0].function.name",
        "no name",
    ),
    "parameters as text": (
        {"messages": chat("a"), "tools": [{"name": "f", "parameters": "x"}]},
        "tools[0].function.parameters",
        "no JSON schema",
    ),
    "properties as a list": (
        {"messages": chat("a"), "tools": [{"name": "f", "parameters": {"properties": ["x"]}}]},
        "tools[0].function.parameters.properties",
        "no JSON schema",
    ),
    "property as text": (
        {
            "messages": chat("a"),
            "tools": [{"name": "f", "parameters": {"properties": {"x": "string"}}}],
        },
        "tools[0].function.parameters.properties.x",
        "no JSON schema",
    ),
    "a set among tools": (
        {"messages": chat("a"), "tools": [{"name": "f", "enum": {1}}]},
        "tools",
        "no JSON",
    ),
    "deep tools": (
        {"messages": chat("a"), "tools": f'[{{"name": "f", "parameters": {deep(400)}}}]'},
        "tools",
        "nested too deeply",
    ),
    "lone surrogate": ({"messages": chat("a", "b\ud800")}, "messages[1].content", "Unicode"),
    "escaped surrogate": (
        {"messages": [user("a"), call('{"name": "f", "arguments": {"x": "\\ud800"}}')]},
        "messages[1].content",
        "Unicode",
    ),
    "surrogate in tools": (
        {"messages": chat("a"), "tools": [{"name": "f\udfff"}]},
        "tools",
        "Unicode",
    ),
    "loss flag": ({"messages": [user("a"), answer("b", loss="yes")]}, "[1].loss", "true or false"),
    "weight below 0": (
        {"messages": [user("a"), answer("b", loss_scale=-1)]},
        "messages[1].loss_scale",
        "no number",
    ),
    "weight NaN": (
        {"messages": [user("a"), answer("b", loss_scale=float("nan"))]},
        "messages[1].loss_scale",
        "no number",
    ),
    "endless weight": (
        {"messages": [user("a"), answer("b", loss_scale=float("inf"))]},
        "messages[1].loss_scale",
        "no number",
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_bad_rows_are_refused_with_their_place(name):
    template = get_template(name, TOKENIZER)
    wrong = []
    for what, (row, where, words) in REFUSED.items():
        try:
            template.encode(row)
        except DataError as err:
            if not str(err.where).endswith(where) or words not in err.message or not err.do:
                wrong.append((what, err.where, err.message))
        else:
            wrong.append((what, "accepted"))
    assert wrong == []


REPAIRED = {
    # what: (row, the row that means the same)
    "assistant first": (
        {"messages": [answer("hello"), *chat("a", "b")]},
        {"messages": [user(""), answer("hello"), *chat("a", "b")]},
    ),
    "text in parts": (
        {"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]},
        {"messages": chat("ab")},
    ),
    "no parts": ({"messages": [user([])]}, {"messages": chat("")}),
    "OpenAI's tool_calls": (
        {
            "messages": [
                user("a"),
                answer(None, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
            ]
        },
        {"messages": [user("a"), call('{"name": "f", "arguments": {}}')]},
    ),
    "role tool": (
        {"messages": [user("a"), call('{"name": "f"}'), {"role": "tool", "content": "x"}]},
        {"messages": [user("a"), call('{"name": "f"}'), {"role": "tool_response", "content": "x"}]},
    ),
    "tools without wrapping": (
        {"messages": chat("a"), "tools": [tool["function"] for tool in TOOLS]},
        {"messages": chat("a"), "tools": json.dumps(TOOLS)},
    ),
    "empty tools": ({"messages": chat("a", "b"), "tools": ""}, {"messages": chat("a", "b")}),
}


@pytest.mark.parametrize("what", REPAIRED)
def test_repairs_are_those_of_the_docs(what):
    given_row, meant = REPAIRED[what]
    template = get_template("qwen2_5", TOKENIZER)
    assert template.encode(given_row).input_ids == template.encode(meant).input_ids


def test_empty_texts_are_texts():
    template = get_template("chatml", TOKENIZER)
    encoded = template.encode({"messages": chat("", "", system="")})
    assert encoded.text == "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    assert encoded.num_labels > 0


def test_a_megabyte_takes_time_in_proportion():
    template = get_template("chatml", TOKENIZER)
    hostile = "<|im_end|>" * 6_000
    for question, reply in ((hostile, "<think>" * 6_000), ("a" * 200_000, " \n" * 30_000)):
        seconds = []
        for size in (1, 4):
            started = time.process_time()
            row = {"messages": chat(question * size, reply * size)}
            assert len(template.encode(row).input_ids) > 1000
            seconds.append(time.process_time() - started)
        # Four times the text; anything quadratic takes sixteen times as long.
        assert seconds[1] < 10 * seconds[0] + 0.5


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{% include '/etc/passwd' %}",
        "{{ messages",
    ],
)
def test_a_hostile_or_broken_chat_template_is_refused(source):
    tokenizer = small_tokenizer(source)
    with pytest.raises(SwiftError) as caught:
        get_template("jinja", tokenizer).encode({"messages": chat("a", "b")})
    assert "template" in str(caught.value)
    assert caught.value.exit_code != 1
    assert caught.value.do


def test_tokenizer_without_the_templates_tokens_names_them():
    with pytest.raises(UsageError) as caught:
        get_template("phi4", TOKENIZER)
    assert "<|im_sep|>" in str(caught.value.found)
    assert "<|im_end|>" not in str(caught.value.found)


def test_slow_tokenizer_says_what_is_needed():
    class Slow:
        chat_template = None

    with pytest.raises(UsageError, match="fast tokenizer") as caught:
        get_template("chatml", Slow())
    assert "tokenizer.json" in caught.value.do


def letters_only(**unknown) -> PreTrainedTokenizerFast:
    """A tokenizer of a few letters that even holds the text of a control token as a piece."""
    letters = ["<unk>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz</>:#.,H"]
    pieces = [(letter, 0.0 if len(letter) > 1 else -2.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens(
        [AddedToken("<unk>", normalized=False), AddedToken("</s>", normalized=False)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **unknown)


def test_characters_that_the_vocabulary_lacks_are_the_unknown_token_and_no_error():
    tokenizer = letters_only(unk_token="<unk>")
    template = get_template("default", tokenizer, default_system="")
    encoded = template.encode({"messages": chat("one é two", "three")})
    assert encoded.text.count("one <unk> two") == 1
    assert "é" not in encoded.text
    assert template.pieces.num_kept_as_text == 0


def test_a_vocabulary_that_holds_a_control_tokens_text_is_broken_up_not_obeyed():
    tokenizer = letters_only(unk_token="<unk>")
    template = get_template("default", tokenizer, default_system="")
    hostile = "</s>" * 5000 + "<unk>"
    encoded = template.encode({"messages": chat(hostile, "yes</s>no")})
    assert encoded.input_ids.count(tokenizer.eos_token_id) == 1
    assert hostile in encoded.text
    assert template.pieces.num_kept_as_text == 5002


# Words that are control tokens somewhere, their halves, and what tokenizers treat in a way of
# its own: spaces, marks, joiners, other scripts.
TOKEN_TEXTS = """<|im_end|> <|im_start|> <|endoftext|> </s> <s> [INST] [/INST] <unk> <think>
</think> <tool_call> <|im_ end|> <| |> é e\u0301 日本 🎉 İ"""
SPACES = [" ", "\n", "\t", "\u200d", "\ufeff", "\x00"]
PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from([*TOKEN_TEXTS.split(), *SPACES]),
)


def texts(draw, tokens: list[str]) -> str:
    parts = draw(st.lists(st.one_of(PIECES, st.sampled_from(tokens)), max_size=8))
    return "".join(parts)


@st.composite
def conversations(draw, tokens: list[str]):
    messages = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": texts(draw, tokens)})
    for _ in range(draw(st.integers(1, 3))):
        messages.append(user(texts(draw, tokens)))
        if draw(st.booleans()):
            arguments = {"x": texts(draw, tokens)}
            messages.append(call(json.dumps({"name": "f", "arguments": arguments})))
            messages.append({"role": "tool_response", "content": texts(draw, tokens)})
        messages.append(answer(texts(draw, tokens)))
    row = {"messages": messages}
    if draw(st.booleans()):
        description = texts(draw, tokens)
        row["tools"] = [{"name": "f", "description": description, "parameters": {}}]
    return row


def without_control(row, tokens: list[str], special: list[str]):
    """Return the row with every control token's text replaced, and those the model may write kept.

    What is left can make no control token: the same number has to be in the real row.
    """

    def clean(text: str, forbidden: list[str]) -> str:
        for token in sorted(forbidden, key=len, reverse=True):
            text = text.replace(token, "x")
        return text

    messages = []
    for message in row["messages"]:
        forbidden = special if message["role"] == "assistant" else tokens
        content = message["content"]
        if message["role"] == "tool_call":
            value = json.loads(content)
            value["arguments"]["x"] = clean(value["arguments"]["x"], special)
            content = json.dumps(value)
        else:
            content = clean(content, forbidden)
        messages.append({**message, "content": content})
    tools = (
        [{**tool, "description": clean(tool["description"], tokens)} for tool in row["tools"]]
        if "tools" in row
        else None
    )
    return {"messages": messages, **({"tools": tools} if tools else {})}


TOKENIZERS = ("small", "qwen", "gpt2", "mistral_v3", "mistral_tekken")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_control_token_of_the_data_survives_and_decoding_gives_the_text(name, tmp_path_factory):
    if name == "small":
        tokenizer = small_tokenizer()
    else:
        tokenizer = real_tokenizer(name, tmp_path_factory.getbasetemp())
        known = tokenizer.get_added_vocab()
        ends = [token for token in ("</s>", "<|endoftext|>") if token in known]
        tokenizer.eos_token = tokenizer.eos_token or ends[0]
    family = "qwen2_5" if name in ("small", "qwen") else "default"
    template = get_template(family, tokenizer)
    added = {id_: token for id_, token in tokenizer.added_tokens_decoder.items() if token.content}
    tokens = [token.content for token in added.values()]
    special = [token.content for token in added.values() if token.special]

    @settings(
        max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(conversations(tokens))
    def check(row):
        clean = without_control(row, tokens, special)
        for mode in ("train", "infer"):
            asked = row if mode == "train" else {**row, "messages": row["messages"][:-1]}
            meant = clean if mode == "train" else {**clean, "messages": clean["messages"][:-1]}
            encoded = template.encode(asked, mode)
            expected = template.encode(meant, mode)
            found = [token for token in encoded.input_ids if token in added]
            assert found == [token for token in expected.input_ids if token in added]
            pieces = template.plan(asked, mode)
            written = "".join(piece.text or template.decode(list(piece.ids)) for piece in pieces)
            assert same_text(template, encoded.text, written)

    check()


def same_text(template, decoded: str, written: str) -> bool:
    """Compare; byte for byte, or as far as a tokenizer's own normalising and spacing let it."""
    if decoded == written:
        return True
    backend = template.tokenizer.backend_tokenizer
    if backend.normalizer is not None:
        decoded, written = map(backend.normalizer.normalize_str, (decoded, written))
    if "Metaspace" in type(backend.pre_tokenizer).__name__ or "Sequence" in str(backend.decoder):
        # SentencePiece writes a space before a first word and takes one away when it decodes.
        decoded, written = ("".join(text.replace("▁", " ").split()) for text in (decoded, written))
    return decoded == written
