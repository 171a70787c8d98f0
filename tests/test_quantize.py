"""Quantizing: what it costs is measured by definition, and settings that do nothing are refused."""

import pytest
import torch
from pydantic import ValidationError
from training_setup import counting_model, counting_rows, folder_bytes, tiny_base

from swiftcore.export import quantize_model
from swiftcore.export.quality import compare
from swiftcore.models import load_model, model_facts
from swiftcore.recipe import QuantizeSection

pytestmark = pytest.mark.road
ROWS = counting_rows(6, seed=99)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantize")
    return counting_model(tiny_base(folder / "base"), folder / "trained")


def probabilities(model, row):
    """What the model expects at each label, [N, V] in float64."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([row["input_ids"]])).logits[0, :-1].double()
    return logits_TV[[label != -100 for label in row["labels"][1:]]].softmax(-1)


def test_divergence_and_perplexity_are_those_of_the_definition(trained):
    model, other = load_model(trained), load_model(trained)
    with torch.no_grad():
        for weight in other.model.layers[1].parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    found = compare(model, other, ROWS)
    divergence, log_likelihood, num_labels = 0.0, 0.0, 0
    for row in ROWS:
        p_NV, q_NV = probabilities(model, row), probabilities(other, row)
        divergence += float((p_NV * (p_NV / q_NV).log()).sum())
        targets = [label for label in row["labels"][1:] if label != -100]
        log_likelihood += float(q_NV[range(len(targets)), targets].log().sum())
        num_labels += len(targets)
    assert found.kl_divergence == pytest.approx(divergence / num_labels, rel=1e-4)
    assert found.kl_divergence > 1e-4
    perplexity = torch.tensor(-log_likelihood / num_labels).exp().item()
    assert found.quantized.perplexity == pytest.approx(perplexity, rel=1e-4)
    same = compare(model, model, ROWS)
    assert same.kl_divergence == 0
    assert same.quantized.accuracy == same.unquantized.accuracy


@pytest.mark.parametrize("scheme", ["int8_weight_only", "int8_dynamic"])
def test_torchao_model_loads_with_plain_from_pretrained(trained, tmp_path, scheme):
    pytest.importorskip("torchao")
    from transformers import AutoModelForCausalLM

    section = QuantizeSection(quant_method="torchao", torchao_scheme=scheme)
    report = quantize_model(trained, tmp_path / "a", section, sample_rows=ROWS)
    assert report.recovery > 0.95
    assert 0 < report.kl_divergence < 0.1
    assert report.size_bytes < report.unquantized_size_bytes
    facts = model_facts(tmp_path / "a")
    assert (facts["quantization"], facts["parameters"]) == (
        "torchao",
        model_facts(trained)["parameters"],
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a").eval()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert type(model.model.layers[0].mlp.up_proj.weight).__name__ == "Int8Tensor"
    with torch.no_grad():
        logits = model(torch.tensor([ROWS[0]["input_ids"]])).logits
        expected = load_model(trained)(torch.tensor([ROWS[0]["input_ids"]])).logits
    assert 0 < (logits - expected).abs().max() < 0.5
    quantize_model(trained, tmp_path / "b", section, sample_rows=ROWS)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "torchao", "quant_bits": 4}, "stores 8 bits"),
        ({"quant_method": "torchao", "bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type do"),
        ({"torchao_scheme": "int8_dynamic"}, "torchao_scheme do nothing with quant_method bnb"),
        ({"quant_method": "auto_gptq"}, "replaced by gptqmodel"),
        ({"quant_method": "AutoGPTQ"}, "replaced by gptqmodel"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        QuantizeSection(**settings)


def test_bits_are_those_of_the_method():
    assert QuantizeSection().bits == 4
    assert QuantizeSection(quant_bits=8).bits == 8
    assert QuantizeSection(quant_method="torchao").bits == 8
