"""Thinking controls: explicit, on the record, the same in serving, refused where idle."""

import json

import pytest
from family_fixtures import family_tokenizer
from template_fixtures import chat, labelled_text

from swiftcore.errors import DataError, UsageError
from swiftcore.template import get_template, load_template, render_chat, write_template_settings
from swiftcore.template.registry import find_definition

THOUGHT = "<think>\nhm\n</think>\n\ntwo"
OPEN_HY = "<think:opensource>"
EMPTY = "<think>\n\n</think>\n\n"
NAMES = ("qwen3", "qwen3_5", "deepseek_v3_1", "glm4_5", "qwq", "chatml", "qwen3_vl", "hy_v3")
TOKENIZERS = {name: family_tokenizer(find_definition(name)) for name in NAMES}


def _template(name: str, **options):
    return get_template(name, TOKENIZERS[name], **options)


def _end(name: str, kwargs: object = None, **options) -> str:
    """What a prompt has behind the assistant's header."""
    row = {"messages": chat("q"), "chat_template_kwargs": kwargs}
    return _template(name, **options).encode(row, mode="infer").text.partition("q")[2]


@pytest.mark.parametrize(
    ("name", "by_default", "thinking", "not_thinking"),
    [
        ("qwen3", "", "", EMPTY),
        ("qwen3_5", "<think>\n", "<think>\n", EMPTY),
        ("deepseek_v3_1", "</think>", "<think>", "</think>"),
        ("glm4_5", "", "", "\n<think></think>\n"),
        ("qwen3_vl", "", "<think>\n", ""),
        (
            "hy_v3",
            "<think:opensource>",
            "<think:opensource>",
            "<think:opensource></think:opensource>",
        ),
    ],
)
def test_prompts_open_as_asked(name, by_default, thinking, not_thinking):
    header = _end(name, response_prefix="")
    for options, opening in (
        ({}, by_default),
        ({"enable_thinking": True}, thinking),
        ({"enable_thinking": False}, not_thinking),
    ):
        assert _end(name, **options) == header + opening
        # A row speaks for itself, as an object or as JSON text, and beats the caller.
        if options:
            assert _end(name, options) == header + opening
            turned = {"enable_thinking": not options["enable_thinking"]}
            assert _end(name, json.dumps(options), **turned) == header + opening
    assert _end(name, {"enable_thinking": None}) == header + by_default
    assert _end(name, enable_thinking=True, response_prefix="Sure") == header + (
        "\nSure" if name == "glm4_5" else "Sure"
    )


def test_history_thinking_goes_or_stays():
    conversation = chat("one", THOUGHT, "three", "four")
    prompt = conversation[:3]

    def kept(**options) -> tuple[bool, bool]:
        template = _template("qwen3", **options)
        trained = template.encode({"messages": conversation}).text
        return "hm" in trained, "hm" in render_chat(template, prompt).text

    assert kept() == (True, False)
    assert kept(loss_scale="last_round") == (False, False)
    assert kept(preserve_thinking=True) == (True, True)
    assert kept(preserve_thinking=True, loss_scale="last_round") == (True, True)
    assert kept(preserve_thinking=False) == (False, False)


def test_preserved_history_is_served_as_it_was_trained():
    conversation = chat("one", THOUGHT, "three", "four", "five", "six")
    for name in ("qwen3", "qwen3_5", "deepseek_v3_1", "glm4_5"):
        template = _template(name, preserve_thinking=True, response_prefix="")
        trained = template.encode({"messages": conversation}).input_ids
        prompt = render_chat(template, conversation[:5]).input_ids
        assert trained[: len(prompt)] == prompt


def test_answers_without_a_block_get_an_empty_one_unless_told_otherwise():
    row = {"messages": chat("one", "two")}
    stop = "<|im_end|>\n"
    for options, expected in (
        ({}, EMPTY),
        ({"add_non_thinking_prefix": True}, EMPTY),
        ({"add_non_thinking_prefix": False}, ""),
    ):
        encoded = _template("qwen3", **options).encode(row)
        assert labelled_text(TOKENIZERS["qwen3"], encoded) == expected + "two" + stop
    own = _template("deepseek_v3_1").encode({"messages": chat("one", "</think>two")})
    assert own.text.count("</think>") == 1


def test_answers_to_tools_open_as_the_family_does():
    call = {"role": "tool_call", "content": '{"name": "f", "arguments": {}}'}
    messages = [*chat("q"), call, {"role": "tool", "content": "r"}]
    for name, prefix, count in (("qwen3", EMPTY, 2), ("deepseek_v3_1", "</think>", 1)):
        template = _template(name, agent_template="hermes")
        done = template.encode({"messages": [*messages, {"role": "assistant", "content": "a"}]})
        assert done.text.count(prefix) == count
    # The published template of deepseek_v3_1 opens nothing after a tool's answer.
    prompt = render_chat(_template("deepseek_v3_1", agent_template="hermes"), messages)
    assert prompt.text.count("</think>") == 1


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("chatml", {"enable_thinking": True}, "one way only"),
        ("chatml", {"preserve_thinking": True}, "leaves out no think blocks"),
        ("chatml", {"add_non_thinking_prefix": False}, "has no empty think block"),
        ("qwq", {"enable_thinking": False}, "always thinks"),
    ],
)
def test_a_control_that_would_do_nothing_is_refused(name, options, problem):
    with pytest.raises(UsageError, match=problem):
        _template(name, **options)
    row = {"messages": chat("q", "a"), "chat_template_kwargs": options}
    with pytest.raises(DataError) as caught:
        _template(name).encode(row)
    assert caught.value.where.startswith("chat_template_kwargs")


def test_plain_text_has_no_thinking_to_control():
    with pytest.raises(UsageError, match="plain text"):
        _template("qwen3", use_chat_template=False, enable_thinking=True)


@pytest.mark.parametrize(
    "kwargs", [{"enable_thinking": "yes"}, {"reasoning_effort": "high"}, "{", [1]]
)
def test_row_settings_that_mean_nothing_are_refused(kwargs):
    with pytest.raises(DataError):
        _template("qwen3").encode({"messages": chat("q", "a"), "chat_template_kwargs": kwargs})


def test_controls_are_on_the_record_and_serving_obeys_them(tmp_path):
    chosen = {"enable_thinking": False, "preserve_thinking": True, "add_non_thinking_prefix": False}
    template = _template("qwen3", **chosen)
    write_template_settings(tmp_path, template.settings)
    again = load_template(tmp_path, TOKENIZERS["qwen3"])
    assert chosen.items() <= again.settings.items()
    messages = chat("one", THOUGHT, "three")
    assert render_chat(again, messages).input_ids == render_chat(template, messages).input_ids
    assert render_chat(again, messages).text.endswith(EMPTY)


def test_settings_from_before_the_controls_still_load(tmp_path):
    settings = _template("qwen3").settings
    assert not {"enable_thinking", "preserve_thinking", "add_non_thinking_prefix"} & set(settings)
    write_template_settings(tmp_path, settings)
    assert load_template(tmp_path, TOKENIZERS["qwen3"]).settings == settings
