"""An exported folder: transformers comes to the tokens that training used and our server sends."""

import json

import pytest
from family_fixtures import family_tokenizer
from template_fixtures import (
    QWEN2_5_LIKE,
    TOOLS,
    chat,
    small_tokenizer,
)
from transformers import AutoTokenizer

from swiftcore.errors import UsageError
from swiftcore.export.chat_template import complete_chat_files
from swiftcore.models.chat_template import CHAT_TEMPLATE
from swiftcore.template import get_template, list_templates, load_template, write_template_settings
from swiftcore.template.jinja.writer import to_jinja, write_chat_template
from swiftcore.template.registry import find_definition

CALLS = [
    {
        "role": "assistant",
        "content": "I will look.",
        "tool_calls": [
            {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Łódź"}}}
        ],
    },
    {"role": "tool", "content": "21"},
]
CONVERSATIONS = [
    (chat("one"), None),
    (chat("one", "two", "three"), None),
    (chat("one", "two", "three", system="Be kind."), None),
    (chat("w"), TOOLS),
    ([*chat("w", system="Be kind."), *CALLS], TOOLS),
]


def folder_of(tmp_path, tokenizer, name, **options):
    tokenizer.save_pretrained(tmp_path)
    template = get_template(name, tokenizer, **options)
    write_template_settings(tmp_path, template.settings)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 5, "top_p": 0.5}')
    return tmp_path


def assert_same_ids(folder, conversations=CONVERSATIONS):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = load_template(folder, tokenizer)
    for messages, tools in conversations:
        theirs = tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        ours = template.encode({"messages": messages, "tools": tools}, mode="infer").input_ids
        assert list(theirs) == ours, (messages, tokenizer.decode(theirs), template.decode(ours))


@pytest.mark.parametrize("name", ["chatml", "qwen2_5", "qwen3", "llama3", "zephyr", "phi4"])
def test_a_base_without_chat_template_gets_the_familys(name, tmp_path):
    folder = folder_of(tmp_path, family_tokenizer(find_definition(name)), name)
    told = complete_chat_files(folder)
    assert told.startswith(f"written from template {name!r}")
    assert_same_ids(folder, CONVERSATIONS[:3] if "without tools" in told else CONVERSATIONS)


def test_an_equal_template_of_the_model_stays(tmp_path):
    own = "{#- Theirs. -#}\n" + to_jinja(get_template("chatml", small_tokenizer()))
    folder = folder_of(tmp_path, small_tokenizer(own), "chatml")
    assert complete_chat_files(folder) == "the model's own, equal to the template of training"
    assert (folder / "chat_template.jinja").read_text() == own
    assert_same_ids(folder)


def test_another_template_than_training_used_is_replaced(tmp_path):
    folder = folder_of(
        tmp_path, small_tokenizer(CHAT_TEMPLATE), "qwen2_5", default_system="Be brief."
    )
    assert complete_chat_files(folder) == "written from template 'qwen2_5'"
    assert "Be brief." in (folder / "chat_template.jinja").read_text()
    assert_same_ids(folder)


def test_the_jinja_template_of_training_stays(tmp_path):
    folder = folder_of(tmp_path, small_tokenizer(QWEN2_5_LIKE), "jinja")
    assert complete_chat_files(folder) == "the model's own, which training used"
    assert_same_ids(folder, CONVERSATIONS[:3])


def test_stop_tokens_join_those_of_the_generation_config(tmp_path):
    tokenizer = family_tokenizer(find_definition("llama3"))
    folder = folder_of(tmp_path, tokenizer, "llama3")
    complete_chat_files(folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<|eot_id|>", "<_eos>")]
    assert settings == {"eos_token_id": [5, *ids], "top_p": 0.5}


def test_plain_text_models_and_foreign_folders_get_no_chat_template(tmp_path):
    assert complete_chat_files(tmp_path).startswith("as it was")
    folder = folder_of(tmp_path, small_tokenizer(), "default", use_chat_template=False)
    assert complete_chat_files(folder).startswith("none is needed")
    assert not (folder / "chat_template.jinja").exists()


def test_tools_that_jinja_has_no_words_for_are_refused_by_name():
    template = get_template("chatml", small_tokenizer(), agent_template="qwen3_coder")
    with pytest.raises(UsageError, match="no form as a Jinja chat template"):
        to_jinja(template)
    source, has_tools = write_chat_template(template)
    assert not has_tools
    assert "does not write tools" in source


def test_most_families_can_be_written():
    """The rest is served by us alone; docs/templates.md says so."""
    written = {"with tools": 0, "without": 0, "not": 0}
    for name in list_templates()[::8]:
        if name == "jinja":
            continue
        template = get_template(name, family_tokenizer(find_definition(name)))
        source, has_tools = write_chat_template(template)
        written["not" if source is None else "with tools" if has_tools else "without"] += 1
    assert written["with tools"] + written["without"] >= 0.9 * sum(written.values())
