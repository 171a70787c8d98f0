"""Merging and quantizing: equal answers, measured losses, refusals."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from training_setup import counting_model, counting_rows, folder_bytes, tiny_base

from swiftcore.errors import GateRefused, ModelMissing, UsageError
from swiftcore.export import merge_adapter, quantize_model
from swiftcore.models import load_adapted_model, load_model, load_tokenizer, model_facts
from swiftcore.models.base_record import base_record
from swiftcore.models.files import write_json
from swiftcore.recipe import MergeSection, QuantizeSection, TunerSection
from swiftcore.template import get_template, write_template_settings
from swiftcore.tuners import prepare_model

pytestmark = pytest.mark.road

SAMPLES = [row["input_ids"] for row in counting_rows(3)]


def make_adapter(base: Path, folder: Path, **section) -> Path:
    """An adapter whose matrices are all random, so that it changes every answer."""
    torch.manual_seed(3)
    model = prepare_model(load_model(base), TunerSection(init_weights="false", **section))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.05)
    model.save_pretrained(folder)
    write_json(folder / "base_model.json", base_record(base))
    write_template_settings(folder, get_template("qwen2_5", load_tokenizer(base)).settings)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("export") / "base")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return make_adapter(base, tmp_path_factory.mktemp("export") / "adapter")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "section",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True, "lora_rank": 4, "lora_alpha": 8},
        {"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]},
    ],
    ids=lambda section: next(iter(section), "lora"),
)
def test_merged_model_answers_as_the_adapter_does(tmp_path, section, tied):
    base = tiny_base(tmp_path / "base", tie_word_embeddings=tied)
    adapter = make_adapter(base, tmp_path / "adapter", **section)
    report = merge_adapter(base, adapter, tmp_path / "out", MergeSection(), sample_ids=SAMPLES)
    assert report.max_logit_difference < 1e-5
    assert report.num_tokens == sum(map(len, SAMPLES))
    ids = torch.tensor([SAMPLES[0]])
    with torch.no_grad():
        merged = load_model(tmp_path / "out")(ids).logits
        expected = load_adapted_model(base, adapter)(ids).logits
        before = load_model(base)(ids).logits
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)
    assert (merged - before).abs().max() > 1e-2
    assert model_facts(tmp_path / "out")["parameters"] == model_facts(base)["parameters"]


def test_merging_twice_gives_equal_bytes_and_a_complete_folder(base, adapter, tmp_path):
    for name in ("a", "b"):
        merge_adapter(base, adapter, tmp_path / name, MergeSection(), sample_ids=SAMPLES)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")
    assert {file.name for file in (tmp_path / "a").iterdir()} == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "swift_template.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "a/swift_template.json").read_text())["template"] == "qwen2_5"
    assert "You are Qwen" in (tmp_path / "a/chat_template.jinja").read_text()  # the family's
    assert str(tmp_path).encode() not in b"".join(folder_bytes(tmp_path / "a").values())


def test_merge_into_another_base_of_the_same_shape_is_refused(adapter, tmp_path):
    other = tiny_base(tmp_path / "other", seed=9)
    with pytest.raises(UsageError, match="not the base model") as caught:
        merge_adapter(other, adapter, tmp_path / "out", MergeSection(), sample_ids=SAMPLES)
    assert "base: model.safetensors" in caught.value.expected
    assert not (tmp_path / "out").exists()


def test_merge_that_changes_answers_is_refused(tmp_path):
    base = tiny_base(tmp_path / "f32")
    model = load_model(base).to(torch.bfloat16)
    half = Path(shutil.copytree(base, tmp_path / "bf16"))
    model.save_pretrained(half)
    adapter = make_adapter(half, tmp_path / "adapter")
    section = MergeSection(max_logit_difference=1e-6)
    with pytest.raises(GateRefused, match="does not answer as the adapter") as caught:
        merge_adapter(half, adapter, tmp_path / "out", section, sample_ids=SAMPLES)
    assert "bfloat16" in caught.value.found
    assert caught.value.exit_code == 4
    report = merge_adapter(
        half, adapter, tmp_path / "out2", MergeSection(max_logit_difference=1), sample_ids=SAMPLES
    )
    assert report.dtype == model_facts(tmp_path / "out2")["dtype"] == "bfloat16"


def test_merge_without_samples_or_adapter_is_refused(base, adapter, tmp_path):
    with pytest.raises(UsageError, match="without a sample"):
        merge_adapter(base, adapter, tmp_path / "out", MergeSection(), sample_ids=[])
    with pytest.raises(ModelMissing):
        merge_adapter(base, tmp_path, tmp_path / "out", MergeSection(), sample_ids=SAMPLES)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    return counting_model(base, tmp_path_factory.mktemp("export") / "trained")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("double", [True, False])
def test_quantized_model_loads_back_and_its_recovery_is_measured(trained, tmp_path, bits, double):
    from transformers import AutoModelForCausalLM

    rows = counting_rows(12, seed=99)
    section = QuantizeSection(quant_bits=bits, bnb_4bit_use_double_quant=double, quant_n_samples=9)
    report = quantize_model(trained, tmp_path / "a", section, sample_rows=rows)
    assert report.num_rows == 9
    assert report.unquantized_accuracy > 0.5
    assert report.recovery == report.quantized_accuracy / report.unquantized_accuracy
    assert report.recovery > 0.95
    assert report.size_bytes < report.unquantized_size_bytes
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a").eval()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model_facts(tmp_path / "a")["parameters"] == model_facts(trained)["parameters"]
    with torch.no_grad():
        losses = [
            float(model(torch.tensor([row["input_ids"]])).logits.float().log_softmax(-1)[
                0, torch.arange(1, len(row["input_ids"]) - 1), row["labels"][2:]
            ].neg().sum())
            for row in rows[:9]
        ]  # fmt: skip
    assert sum(losses) / report.num_labels == pytest.approx(report.quantized_loss, rel=1e-3)
    quantize_model(trained, tmp_path / "b", section, sample_rows=rows)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


def test_quantized_model_below_the_least_recovery_is_refused(trained, tmp_path, monkeypatch):
    from swiftcore.export import quantize

    write = quantize.write_quantized

    def write_damaged(model_dir, out_dir, section, device):
        from safetensors.torch import load_file, save_file

        write(model_dir, out_dir, section, device)
        tensors = load_file(out_dir / "model.safetensors")
        tensors["model.embed_tokens.weight"].mul_(-1)
        save_file(tensors, out_dir / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(quantize, "write_quantized", write_damaged)
    with pytest.raises(GateRefused, match="lost too much") as caught:
        quantize_model(
            trained, tmp_path / "q", QuantizeSection(), sample_rows=counting_rows(4, seed=99)
        )
    assert caught.value.exit_code == 4
    assert "recovery" in caught.value.found


def test_quantized_base_is_refused_by_merge_and_by_quantize(trained, tmp_path):
    rows = counting_rows(4, seed=99)
    quantize_model(trained, tmp_path / "q", QuantizeSection(), sample_rows=rows)
    adapter = make_adapter(trained, tmp_path / "adapter")
    with pytest.raises(UsageError, match="quantized base"):
        merge_adapter(tmp_path / "q", adapter, tmp_path / "m", MergeSection(), sample_ids=SAMPLES)
    with pytest.raises(UsageError, match="quantized already"):
        quantize_model(tmp_path / "q", tmp_path / "q2", QuantizeSection(), sample_rows=rows)


def test_recovery_that_cannot_be_measured_is_refused(base, trained, tmp_path):
    unlabelled = counting_rows(4, labelled=False)
    with pytest.raises(UsageError, match="no sample row has a label"):
        quantize_model(trained, tmp_path / "q", QuantizeSection(), sample_rows=unlabelled)
    hopeless = [{"input_ids": [5, 6], "labels": [-100, 6]}]
    with pytest.raises(GateRefused, match="can't be measured"):
        quantize_model(base, tmp_path / "q2", QuantizeSection(), sample_rows=hopeless)
