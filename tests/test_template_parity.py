"""Our tokens against the model's own chat template: what is equal, and what stops the stage."""

import json

import pytest
from template_fixtures import (
    QWEN2_5_LIKE,
    TOOLS,
    chat,
    real_tokenizer,
    shared_file,
    small_tokenizer,
)
from test_template_dataset import write_dataset

from swiftcore.errors import GateRefused, UsageError
from swiftcore.models.chat_template import CHAT_TEMPLATE
from swiftcore.recipe.sections import TemplateSection
from swiftcore.template import encode_dataset, get_template, parity_report

CALL = {"role": "tool_call", "content": '{"name": "get_weather", "arguments": {"city": "Paris"}}'}
ROWS = [
    {"messages": chat("one", "two")},
    {"messages": chat("one", "two", "three", "four", system="Be kind.")},
]
NO_NEWLINE = QWEN2_5_LIKE.replace("<|im_end|>\\n' }}", "<|im_end|>' }}")


def encode(tmp_path, chat_template, rows=ROWS, method="sft", **options):
    folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    encode_dataset(
        TemplateSection(**{"template": "qwen2_5", **options}),
        write_dataset(folder / "dataset", train=rows),
        small_tokenizer(chat_template),
        folder / "out",
        method=method,
        model_type="qwen2",
        max_model_length=None,
    )
    return json.loads((folder / "out" / "parity.json").read_text())


def test_equal_tokens_pass(tmp_path):
    parity = encode(tmp_path, QWEN2_5_LIKE)
    assert parity["text"] == (
        "prompt 2 of 2 equal, 0 refused; conversation 2 of 2 equal, 0 refused"
    )


def test_the_template_of_models_made_here_passes_with_tools(tmp_path):
    reply = {"role": "tool_response", "content": "21"}
    told = {"role": "assistant", "content": "21 degrees."}
    rows = [*ROWS, {"messages": [*chat("w"), CALL, reply, told], "tools": json.dumps(TOOLS)}]
    parity = encode(tmp_path, CHAT_TEMPLATE, rows, template="chatml")
    assert parity["prompt"]["equal"] == parity["conversation"]["equal"] == 3
    parity = encode(tmp_path, CHAT_TEMPLATE, rows, template="jinja")
    assert parity["prompt"]["equal"] == parity["conversation"]["equal"] == 3


def test_other_tokens_stop_the_stage_with_the_first_difference(tmp_path):
    with pytest.raises(GateRefused) as caught:
        encode(tmp_path, NO_NEWLINE)
    error = caught.value
    assert error.exit_code == 4
    assert error.message.startswith("2 of 2 prompts are other tokens")
    assert "row 0" in error.where
    assert "after" in error.where
    assert error.found.startswith("'\\n<|im_start|>")
    assert error.expected.startswith("'<|im_start|>")
    assert "parity_waivers: [prompt]" in error.do


def test_a_difference_is_waived_by_its_name_only(tmp_path):
    with pytest.raises(GateRefused, match="conversations are other tokens"):
        encode(tmp_path, NO_NEWLINE, parity_waivers=["prompt"])
    parity = encode(tmp_path, NO_NEWLINE, parity_waivers=["prompt", "conversation"])
    assert parity["prompt"]["differing"] == parity["conversation"]["differing"] == 2


def test_nothing_to_compare_with_is_no_difference(tmp_path):
    assert encode(tmp_path, None)["has_template"] is False
    plain = encode(tmp_path, NO_NEWLINE, method="pt", template=None)
    assert plain["text"].startswith("not compared")


def test_a_text_cut_into_other_tokens_where_the_answer_begins_is_equal():
    """A newline that opens an answer joins the prompt's last one in the whole text only."""
    tokenizer = small_tokenizer(QWEN2_5_LIKE)
    template = get_template("qwen2_5", tokenizer)
    row = {"messages": chat("one", "in Paris.")}
    # Make the tokenizer join across the border: its merges know " Paris" and "in Paris".
    glued = {"messages": chat("one", "user")}
    for each in (row, glued):
        report = parity_report(template, tokenizer, [each])
        assert report["conversation"]["equal"] == 1


def test_the_same_text_with_a_control_token_less_is_a_difference():
    source = QWEN2_5_LIKE.replace(
        "'<|im_start|>' + message.role", "'<|im_start' + '|>' + message.role"
    )
    tokenizer = small_tokenizer(source.replace("<|im_end|>\\n' }}", "<|im_end|\\n' }}"))
    report = parity_report(get_template("qwen2_5", tokenizer), tokenizer, ROWS)
    assert report["conversation"]["equal"] == 0


def test_what_follows_the_last_stop_token_does_not_matter():
    tokenizer = small_tokenizer(
        QWEN2_5_LIKE + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}"
    )
    template = get_template("qwen2_5", tokenizer)
    assert parity_report(template, tokenizer, ROWS)["conversation"]["equal"] == 2
    tokenizer = small_tokenizer(
        QWEN2_5_LIKE + "{% if not add_generation_prompt %}The end{% endif %}"
    )
    template = get_template("qwen2_5", tokenizer)
    assert parity_report(template, tokenizer, ROWS)["conversation"]["equal"] == 0


def test_rows_that_hold_control_tokens_are_counted_not_compared():
    tokenizer = small_tokenizer(QWEN2_5_LIKE)
    row = {"messages": chat("one <|im_end|>", "two")}
    report = parity_report(get_template("qwen2_5", tokenizer), tokenizer, [row, *ROWS])
    assert report["prompt"]["holding_tokens"] == 1
    assert report["prompt"]["compared"] == report["prompt"]["equal"] == 2
    assert "1 with control tokens in their text" in report["text"]
    unsafe = get_template("qwen2_5", tokenizer, allow_control_tokens=True)
    assert parity_report(unsafe, tokenizer, [row])["prompt"]["equal"] == 1


def test_a_template_that_contradicts_its_own_prompt_is_no_measure():
    source = QWEN2_5_LIKE.replace(
        "assistant\\n' }}{%- endif", "assistant\\n<think>\\n' }}{%- endif"
    )
    tokenizer = small_tokenizer(source)
    report = parity_report(get_template("qwen2_5", tokenizer), tokenizer, ROWS)
    assert report["conversation"]["inconsistent"] == 2
    assert report["conversation"]["compared"] == 0
    assert report["prompt"]["differing"] == 2


def test_rows_that_the_other_template_refuses_are_counted():
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    tokenizer = small_tokenizer(source + QWEN2_5_LIKE)
    report = parity_report(get_template("qwen2_5", tokenizer), tokenizer, ROWS)
    assert report["prompt"]["refused"] == report["conversation"]["refused"] == 1
    assert report["prompt"]["equal"] == 1


THINKING = QWEN2_5_LIKE.replace(
    "assistant\\n' }}{%- endif",
    "assistant\\n' }}{%- if enable_thinking is defined and not enable_thinking -%}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}{%- endif",
)


def test_settings_reach_a_chat_template_that_reads_them_and_no_other():
    tokenizer = small_tokenizer(THINKING)
    quiet = get_template("jinja", tokenizer, enable_thinking=False)
    asked = {"messages": chat("one")}
    assert quiet.encode(asked, mode="infer").text.endswith("</think>\n\n")
    usual = get_template("jinja", tokenizer)
    row = {**asked, "chat_template_kwargs": {"enable_thinking": False}}
    assert usual.encode(row, mode="infer").text.endswith("</think>\n\n")
    assert usual.encode(asked, mode="infer").text.endswith("assistant\n")
    with pytest.raises(UsageError, match="does not read 'enable_thinking'"):
        get_template("jinja", small_tokenizer(QWEN2_5_LIKE), enable_thinking=False)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [({}, 2), ({"enable_thinking": False}, 2), ({"enable_thinking": True}, 2)],
)
def test_thinking_controls_are_compared_too(thinking, expected, tmp_path):
    tokenizer = real_tokenizer("qwen", tmp_path)
    path = shared_file("data", "chat_templates", "qwen3", "llamacpp__Qwen-Qwen3-0.6B.jinja")
    tokenizer.chat_template = path.read_text(encoding="utf-8")
    template = get_template("qwen3", tokenizer, **thinking)
    assert parity_report(template, tokenizer, ROWS)["prompt"]["equal"] == expected


def test_answers_that_are_not_trained_are_in_the_report(tmp_path):
    source = QWEN2_5_LIKE.replace(
        "message.content + '<|im_end|>",
        "(message.content if loop.last or message.role == 'user' else '') + '<|im_end|>",
    )
    encode(tmp_path, source, template="jinja")
    report = json.loads((tmp_path / "run0" / "out" / "report.json").read_text())
    reason = "it writes an answer differently once the conversation goes on"
    assert report["splits"]["train"]["untrained_answers"] == {reason: 1}
