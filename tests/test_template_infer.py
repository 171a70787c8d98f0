"""Templates inferred from a model's architecture, tokens and chat template."""

import json
import time

import pytest
from family_fixtures import family_tokenizer
from template_fixtures import QWEN2_5_LIKE, SHARED, shared_file, small_tokenizer

from swiftcore.errors import UsageError
from swiftcore.template import infer_model, infer_template
from swiftcore.template.families import FAMILIES
from swiftcore.template.model_types import TEMPLATES_OF
from swiftcore.template.registry import find_definition

BY_NAME = {family.name: family for family in FAMILIES}
# Written from what the families' data says, for tokenizers that have their control tokens.
GLM4_LIKE = """\
[gMASK]<sop>{%- for m in messages -%}
{%- if m.role == 'assistant' -%}{{ '\\n' + m.content }}
{%- else -%}{{ '<|' + m.role + '|>\\n' + m.content }}{%- endif -%}
{%- if m.role == 'user' -%}{{ '<|assistant|>' }}{%- endif -%}
{%- endfor -%}{%- if not add_generation_prompt -%}{{ '<|user|>' }}{%- endif -%}
"""
PHI4_LIKE = """\
{%- for m in messages -%}
{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant<|im_sep|>' }}{%- endif -%}
"""


def test_every_candidate_of_an_architecture_is_registered():
    for architecture, names in TEMPLATES_OF.items():
        assert len(set(names)) == len(names) > 0, architecture
        for name in names:
            find_definition(name)


@pytest.mark.parametrize(
    ("family", "source", "architecture"),
    [("glm4", GLM4_LIKE, "glm4"), ("glm4", GLM4_LIKE, ""), ("phi4", PHI4_LIKE, "phi3")],
)
def test_the_family_that_writes_the_same_is_found(family, source, architecture):
    tokenizer = family_tokenizer(BY_NAME[family])
    tokenizer.chat_template = source
    assert infer_template(tokenizer, {"model_type": architecture}) == family


def test_without_a_chat_template_architecture_and_tokens_must_leave_one():
    cases = {("glm4_moe_lite", "glm4_7"): "glm4_7", ("seed_oss", "seed_oss"): "seed_oss"}
    for (architecture, tokens), expected in cases.items():
        tokenizer = family_tokenizer(BY_NAME[tokens])
        assert infer_template(tokenizer, {"model_type": architecture}) == expected
    # The architecture says glm4_moe, the tokens fit both of its families.
    with pytest.raises(UsageError) as caught:
        infer_template(family_tokenizer(BY_NAME["glm4_5"]), {"model_type": "glm4_moe"})
    assert "glm4_5, glm4_7" in caught.value.expected
    with pytest.raises(UsageError):
        infer_template(small_tokenizer(), {"model_type": "seed_oss"})


def test_a_local_folder_says_kind_and_template(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    found = infer_model(tmp_path, small_tokenizer(QWEN2_5_LIKE))
    assert (found.model_type, found.template, found.near) == ("qwen2_5", "qwen2_5", ())


def test_near_families_are_named_where_none_is_equal(tmp_path):
    # As qwen2_5, and with another word where the answer begins after a first answer.
    odd = QWEN2_5_LIKE.replace(
        "{%- if add", "{%- if messages|length > 2 -%}!{%- endif -%}{%- if add"
    )
    found = infer_model(tmp_path, small_tokenizer(odd))
    assert found.template == "jinja"
    assert found.model_type is None
    assert found.near[0] == "qwen2_5"
    assert len(found.near) <= 5


def test_comparing_with_all_families_is_quick():
    tokenizer = small_tokenizer(QWEN2_5_LIKE + "!")
    started = time.process_time()
    assert infer_template(tokenizer, None) == "jinja"
    assert time.process_time() - started < 5  # 253 families; a second on an idle core


PUBLISHED = {
    "llama3/axolotl__llama3.jinja": ("llama", "llama3"),
    "qwen2.5/llamacpp__Qwen-Qwen2.5-7B-Instruct.jinja": ("qwen2", "qwen2_5"),
    "qwen3/llamacpp__Qwen-Qwen3-0.6B.jinja": ("qwen3", "qwen3"),
    "seed-oss/llamacpp__ByteDance-Seed-OSS.jinja": ("seed_oss", "seed_oss"),
    "kimi-k2/llamacpp__moonshotai-Kimi-K2.jinja": ("kimi_k2", "moonlight"),
    # What these write behind the last stop token is never reached.
    "gemma3/trl__gemma3.jinja": ("gemma3_text", "gemma3_text"),
    "phi3/trl__phi3.jinja": ("phi3", "phi3"),
    # It refuses system prompts, for which the family has a turn.
    "gemma2/llamacpp__google-gemma-2-2b-it.jinja": ("gemma", "jinja"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_are_recognised(name, tmp_path):
    shared_file("data", "chat_templates")
    architecture, expected = PUBLISHED[name]
    source = SHARED / "data" / "chat_templates" / name
    family = BY_NAME[architecture if expected == "jinja" else expected]
    tokenizer = family_tokenizer(family)
    # The tokens the models' own tokenizers name, where their templates ask for them.
    tokenizer.bos_token = {
        "llama3": "<|begin_of_text|>",
        "gemma3_text": "<bos>",
        "gemma": "<bos>",
    }.get(family.name, "<_bos>")
    tokenizer.chat_template = source.read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
    found = infer_model(tmp_path, tokenizer)
    assert found.template == expected
    if expected == "jinja":
        assert found.near[0] == family.name
