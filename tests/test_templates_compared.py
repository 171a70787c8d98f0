"""The page that compares published chat templates with our families is what it says today."""

import pytest
from template_fixtures import QWEN2_5_LIKE, real_tokenizer, shared_file
from templates_compared import (
    CONVERSATIONS,
    PAGE,
    PROMPTS,
    TODAY,
    TOOL_PROMPTS,
    compare,
    compare_all,
    page,
)

from swiftcore.template import get_template, parity_report


def test_page_is_what_a_new_comparison_says():
    shared_file("data", "chat_templates")
    hint = "run `python -m tests.templates_compared` and look at what changed"
    assert PAGE.read_text(encoding="utf-8") == page(compare_all()), hint


def test_a_difference_is_found_and_named():
    equal = compare("qwen2.5/equal", QWEN2_5_LIKE)
    assert (equal.verdict, equal.family) == ("equal", "qwen2_5")
    spaced = compare("qwen2.5/spaced", QWEN2_5_LIKE.replace("<|im_end|>\\n", "<|im_end|>\\n\\n"))
    assert spaced.verdict == "different"
    assert "white space only" in spaced.reasons[0]
    assert compare("nobody/knows", QWEN2_5_LIKE).verdict == "not claimed"


@pytest.mark.parametrize(
    ("family", "path", "name"),
    [
        ("qwen2_5", ("qwen2.5", "llamacpp__Qwen-Qwen2.5-7B-Instruct.jinja"), "qwen"),
        ("qwen3", ("qwen3", "llamacpp__Qwen-Qwen3-0.6B.jinja"), "qwen"),
        ("qwen3_nothinking", ("qwen3", "trl__qwen3_instruct_2507.jinja"), "qwen"),
    ],
)
def test_equal_texts_are_equal_tokens_with_the_models_own_tokenizer(family, path, name, tmp_path):
    tokenizer = real_tokenizer(name, tmp_path)
    tokenizer.chat_template = shared_file("data", "chat_templates", *path).read_text("utf-8")
    template = get_template(family, tokenizer, today=TODAY)
    report = parity_report(template, tokenizer, PROMPTS.values())
    assert report["prompt"]["equal"] == len(PROMPTS)
    rows = [CONVERSATIONS["one round"]]
    assert parity_report(template, tokenizer, rows)["conversation"]["equal"] == 1
    if family == "qwen2_5":
        assert parity_report(template, tokenizer, TOOL_PROMPTS.values())["prompt"]["equal"] == 2
