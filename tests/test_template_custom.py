"""Families of the user's own: from YAML and Python files, into settings and the fingerprint."""

import json

import pytest
from template_fixtures import chat, small_tokenizer

from swiftcore.data import build_dataset
from swiftcore.errors import UsageError
from swiftcore.recipe import DataSection, build_recipe
from swiftcore.stages.template import TEMPLATE
from swiftcore.template import (
    encode_dataset,
    get_template,
    list_templates,
    load_template,
    read_template_files,
    render_chat,
    write_template_settings,
)
from swiftcore.template.dataset import resolve_template

TOKENIZER = small_tokenizer()
YAML = """\
# Two turns and a stop token.
terse:
  prompt: "<|im_start|>{{QUERY}}<|im_end|>"
  chat_sep: "<|im_end|>"
  suffix: "<|im_end|>"
  system_prefix: "{{SYSTEM}}|"
kind:
  base: chatml
  default_system: Be kind.
  stop_words: ["###"]
"""
PYTHON = """\
from swiftcore.template import ChatTemplate, register_template

register_template(ChatTemplate(name="shout", prompt="{{QUERY}}!", chat_sep="", suffix="<|im_end|>"))
"""


def _files(folder):
    (folder / "mine.yaml").write_text(YAML)
    (folder / "mine.py").write_text(PYTHON)
    return [str(folder / "mine.yaml"), str(folder / "mine.py")]


def _recipe(template: str | None, files: list[str]):
    data = {"dataset": ["d.jsonl"]}
    section = {"template": template, "custom_template": files}
    return build_recipe({"model": {"model": "m"}, "data": data, "template": section}).recipe


def test_yaml_and_python_files_define_families(tmp_path):
    found = read_template_files(_files(tmp_path))
    assert sorted(found) == ["kind", "shout", "terse"]
    assert not set(found) & set(list_templates())  # known to this caller alone

    def text(name):
        return get_template(found[name], TOKENIZER).encode({"messages": chat("q", "a")}).text

    assert text("terse") == "<|im_start|>q<|im_end|>a<|im_end|>"
    assert text("shout") == "q!a<|im_end|>"
    assert text("kind").startswith("<|im_start|>system\nBe kind.<|im_end|>\n")
    assert get_template(found["kind"], TOKENIZER).stop_words[-1] == "###"


def test_settings_carry_the_definition_so_that_nobody_needs_the_file(tmp_path):
    files = _files(tmp_path)
    template = get_template(read_template_files(files)["terse"], TOKENIZER)
    write_template_settings(tmp_path / "model", template.settings)
    (tmp_path / "mine.yaml").unlink()
    again = load_template(tmp_path / "model", TOKENIZER)
    row = {"messages": chat("q", "a", system="s")}
    assert again.encode(row).input_ids == template.encode(row).input_ids
    assert again.settings == json.loads(json.dumps(template.settings)) | {
        "definition": template.settings["definition"]
    }
    assert "definition" not in get_template("chatml", TOKENIZER).settings


def test_a_recipe_uses_its_own_template(tmp_path):
    files = _files(tmp_path)

    def resolve(template, paths):
        return resolve_template(
            _recipe(template, paths).template,
            TOKENIZER,
            method="sft",
            model_type=None,
            max_model_length=None,
        )

    assert resolve("kind", files).default_system == "Be kind."
    assert resolve(None, files[1:]).name == "shout"
    for template in (None, "chatml"):
        with pytest.raises(UsageError, match="uses none of them"):
            resolve(template, files)


def test_a_dataset_is_encoded_and_served_with_it(tmp_path):
    files = _files(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": chat("q", "a")}) + "\n")
    data = DataSection.model_validate({"dataset": [str(tmp_path / "rows.jsonl")]})
    build_dataset(data, tmp_path / "dataset", work_dir=tmp_path / "work")
    report = encode_dataset(
        _recipe("shout", files).template,
        tmp_path / "dataset",
        TOKENIZER,
        tmp_path / "encoded",
        method="sft",
        model_type=None,
        max_model_length=None,
    )
    assert report.settings["definition"]["prompt"] == "{{QUERY}}!"
    again = load_template(tmp_path / "encoded", TOKENIZER)
    assert render_chat(again, chat("q")).text == "q!"


def test_the_fingerprint_holds_what_the_file_says_and_not_where_it_is(tmp_path):
    (tmp_path / "b").mkdir()
    first = TEMPLATE.config(_recipe("kind", _files(tmp_path)))
    moved = TEMPLATE.config(_recipe("kind", _files(tmp_path / "b")))
    assert first == moved
    (tmp_path / "b" / "mine.yaml").write_text(YAML.replace("Be kind", "Be brief"))
    assert TEMPLATE.config(_recipe("kind", [str(tmp_path / "b" / "mine.yaml")])) != first
    assert "registered" not in TEMPLATE.config(_recipe("chatml", []))


WRONG = {
    "prompt: a{{QUERY}}\n  chat_sep: ''\n  suffixes: b": ("mine.yaml:1: x.suffixes", "suffix"),
    "prompt: a{{QUERY}}\n  chat_sep: ''": ("mine.yaml:1: x", "prompt, chat_sep, suffix"),
    "base: chatmll": ("template", "chatml"),
    "base: chatml\n  auto_add_bos: true": ("mine.yaml:1: x.auto_add_bos", "add_bos"),
    "base: chatml\n  add_bos: 1": ("mine.yaml:1: x.add_bos", "true or false"),
    "base: chatml\n  stop_words: '#'": ("mine.yaml:1: x.stop_words", "a list of texts"),
    "base: chatml\n  prompt: '{{QUER}}'": ("mine.yaml:1: x.prompt", "{{QUERY}}"),
    "base: chatml\n  prompt: hello": ("mine.yaml:1: x.prompt", "{{QUERY}}"),
    "base: chatml\n  system_round: middle": ("mine.yaml:1: x.system_round", "first or last"),
    "base: chatml\n  suffix: ''": ("mine.yaml:1: x.suffix", "text that ends an answer"),
}


@pytest.mark.parametrize("fields", WRONG)
def test_wrong_fields_name_file_field_and_the_nearest_legal_name(tmp_path, fields):
    path = tmp_path / "mine.yaml"
    path.write_text(f"x:\n  {fields}\n")
    with pytest.raises(UsageError) as caught:
        read_template_files([path])
    where, expected = WRONG[fields]
    assert str(caught.value.where).endswith(where)
    assert expected in str(caught.value.expected)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.yaml", "- a"),
        ("mine.yaml", "a: [b"),
        ("mine.yaml", "qwen3:\n  base: chatml\n"),
        ("mine.py", "1/0"),
        ("mine.py", "x = 1"),
        ("mine.py", PYTHON.replace("{{QUERY}}", "")),
        ("mine.json", "{}"),
        ("absent.yaml", None),
    ],
)
def test_files_that_define_nothing_usable_are_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as caught:
        read_template_files([tmp_path / name])
    assert name in str(caught.value.where)
