"""`swift export`, `swift merge-lora`, `swift convert`: forms of a model, and publishing them."""

import json
import re

import pytest
import torch
from family_fixtures import family_tokenizer
from test_export import make_adapter
from training_setup import tiny_base

from swiftcore.errors import UsageError
from swiftcore.export.ollama import modelfile
from swiftcore.models import load_adapted_model, load_model
from swiftcore.template import get_template
from swiftcore.template.registry import find_definition
from tests.roads import swift_here, write_rows
from tests.stub_model_hub import model_hub

pytestmark = pytest.mark.road


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("export") / "base")


def as_ollama(file: str, messages: list[dict]) -> str:
    """Render a Modelfile's TEMPLATE: the part of Go's template language that ours uses."""
    from jinja2 import Environment

    source = re.search(r'TEMPLATE """(.*?)"""\n', file, re.DOTALL)
    assert source
    opened: list[str] = []

    def jinja(found: re.Match) -> str:
        code = found[1].strip()
        if code.startswith(("if", "range")):
            opened.append("for" if code.startswith("range") else "if")
        if code == "end":
            return f"{{% end{opened.pop()} %}}"
        return {
            "if .System": "{% if system %}",
            ".System": "{{ system }}",
            "range $i, $_ := .Messages": "{% for message in messages %}",
            "$last := eq (len (slice $.Messages $i)) 1": "",
            'if eq .Role "user"': "{% if message.role == 'user' %}",
            'else if eq .Role "assistant"': "{% elif message.role == 'assistant' %}",
            ".Content": "{{ message.content }}",
            "if not $last": "{% if not loop.last %}",
            "else": "{% else %}",
        }[code]

    text = re.sub(r"\{\{(.*?)\}\}", jinja, source[1])
    default = re.search(r'SYSTEM """(.*?)"""\n', file, re.DOTALL)
    system = default[1] if default else ""
    if messages[0]["role"] == "system":
        system = messages[0]["content"]
    environment = Environment(keep_trailing_newline=True)
    return environment.from_string(text).render(system=system, messages=messages)


@pytest.mark.parametrize("family", ["chatml", "qwen2_5", "llama3", "llama", "gemma", "phi3"])
def test_ollama_writes_what_the_model_was_trained_on(family):
    template = get_template(family, family_tokenizer(find_definition(family)))
    file = modelfile(template, "./model.gguf")
    talk = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Me."},
        {"role": "user", "content": "Why?"},
    ]
    for messages in (talk, talk[:1], [{"role": "system", "content": "Be kind."}, *talk]):
        assert as_ollama(file, messages) == template.encode({"messages": messages}, "infer").text
    assert file.startswith("FROM ./model.gguf\n")
    for word in template.stop_words:
        assert f"PARAMETER stop {json.dumps(word, ensure_ascii=False)}" in file


def test_texts_that_ollama_would_read_itself_are_refused(base):
    template = get_template(
        "chatml", family_tokenizer(find_definition("chatml")), default_system="Say {{ .System }}"
    )
    with pytest.raises(UsageError, match="no form as an Ollama Modelfile"):
        modelfile(template, "./model.gguf")


def test_merge_lora_writes_a_model_that_answers_as_the_adapter(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter")
    flags = ["--model", base, "--adapters", adapter, "--output_dir", tmp_path / "merged"]
    done = swift_here("merge-lora", *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["max_logit_difference"] < 1e-5
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = load_adapted_model(base, adapter)(ids).logits
        torch.testing.assert_close(load_model(tmp_path / "merged")(ids).logits, expected)
    again = swift_here("export", "--merge_lora", "true", *flags)
    assert again.returncode == 2
    assert "not empty" in again.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]


def test_export_quantizes_with_the_rows_of_a_dataset(base, tmp_path):
    talk = [{"role": "user", "content": "the quick"}, {"role": "assistant", "content": "brown fox"}]
    rows = write_rows(tmp_path / "rows.jsonl", [{"messages": talk}] * 4)
    done = swift_here(
        "export", "--model", base, "--dataset", rows, "--template", "chatml", "--quant_method",
        "bnb", "--quant_bits", "8", "--min_recovery", "0", "--output_dir", tmp_path / "int8",
        "--store", tmp_path / "store", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "recovery" in json.loads(done.stdout)
    quantized = json.loads((tmp_path / "int8/config.json").read_text())["quantization_config"]
    assert quantized["load_in_8bit"]
    assert load_model(tmp_path / "int8")

    dry = swift_here(
        "export", "--model", tmp_path / "int8", "--push_to_hub", "true", "--hub_model_id", "me/m",
        "--dry-run", "--license", "apache-2.0", "--store", tmp_path / "store", "--json",
    )  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    assert json.loads(dry.stdout)["published"]["files"].keys() >= {"README.md", "config.json"}
    with model_hub() as hub:
        published = swift_here(
            "export", "--model", tmp_path / "int8", "--push_to_hub", "--hub_model_id", "me/m",
            "--license", "apache-2.0", "--store", tmp_path / "store", "--json",
        )  # fmt: skip
        assert published.returncode == 0, published.stderr
    repo = hub.repos["me/m"]
    assert repo["private"] is True
    assert repo["files"].keys() == json.loads(dry.stdout)["published"]["files"].keys()
    assert "record.json" not in repo["files"]
    assert repo["files"]["config.json"] == (tmp_path / "int8/config.json").read_bytes()
    card = repo["files"]["README.md"].decode()
    assert card.startswith("---\nbase_model: base\n")
    assert "license: apache-2.0" in card
    assert "accuracy kept by quantization" in card
    assert re.search(r"\| data \| .*sha256 [0-9a-f]{64} \|", card)


def test_publishing_needs_a_token_a_name_and_a_private_place(base, monkeypatch):
    flags = ["export", "--model", base, "--push_to_hub", "true", "--hub_model_id"]
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "HF_TOKEN" in (done := swift_here(*flags, "me/m")).stderr
    assert done.returncode == 5
    assert swift_here(*flags, "nobody").returncode == 2
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    assert "switched off" in swift_here(*flags, "me/m").stderr
    with model_hub() as hub:
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert "refuses the upload" in (done := swift_here(*flags, "me/m")).stderr
        assert "hf_wrong" not in done.stderr
        monkeypatch.setenv("HF_TOKEN", hub.token)
        hub.repos["me/open"] = {"private": False, "files": {}, "messages": []}
        assert "repository is public" in swift_here(*flags, "me/open").stderr
        assert hub.repos["me/open"]["files"] == {}
        done = swift_here(*flags, "me/open", "--hub_private_repo", "false")
        assert done.returncode == 0, done.stderr
        assert "not recorded" in hub.repos["me/open"]["files"]["README.md"].decode()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "no folder for the result"),
        (["--output_dir", "x", "--model", "m"], "nothing to do"),
        (
            ["--output_dir", "x", "--model", "m", "--to_gguf", "f16", "--lora_rank", "8"],
            "nothing h",
        ),
        (
            ["--output_dir", "x", "--model", "m", "--adapters", "a", "--to_gguf", "f16"],
            "without --m",
        ),
        (["--output_dir", "x", "--model", "m", "--merge_lora"], "with 0 adapters"),
        (["--model", "m", "--push_to_hub"], "without --hub_model_id"),
        (["--output_dir", "x", "--model", "m", "--quant_method", "auto_gptq"], "gptqmodel"),
    ],
)
def test_flags_that_do_nothing_are_refused(flags, words):
    done = swift_here("export", *flags)
    assert done.returncode == 2
    assert words in done.stderr


def test_ollama_and_convert_write_gguf(base, tmp_path):
    pytest.importorskip("gguf")
    from swiftcore.template import write_template_settings

    tokenizer_settings = get_template(
        "chatml", family_tokenizer(find_definition("chatml"))
    ).settings
    write_template_settings(base, tokenizer_settings)
    out = tmp_path / "out"
    done = swift_here(
        "export", "--model", base, "--to_ollama", "true", "--to_gguf", "q8_0", "--output_dir", out
    )
    assert done.returncode == 0, done.stderr
    assert (out / "Modelfile").read_text().startswith("FROM ./model-q8_0.gguf\n")
    converted = swift_here("convert", base, tmp_path / "m.gguf", "--outtype", "q8_0")
    assert converted.returncode == 0, converted.stderr
    assert swift_here("convert", tmp_path / "m.gguf", tmp_path / "m").returncode == 2
