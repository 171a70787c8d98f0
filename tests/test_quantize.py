"""Quantizing: what it costs is measured by definition, and settings that do nothing are refused."""

import logging
import shutil

import pytest
import torch
from pydantic import ValidationError
from training_setup import counting_model, counting_rows, folder_bytes, tiny_base

from bench.quantization import vllm_perplexity
from swiftcore.backends import awq_tools
from swiftcore.errors import BackendMissing, DataError, EnvironmentMissing, UsageError
from swiftcore.export import Workplace, quantize_model
from swiftcore.export.by_backend import group_size, write_by_backend
from swiftcore.export.quality import compare
from swiftcore.export.sample_rows import calibration_ids
from swiftcore.models import load_model, model_facts
from swiftcore.models.files import read_json, write_json
from swiftcore.models.quiet import quiet_imports
from swiftcore.recipe import QuantizeSection, Runtime

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
        ({"quant_method": "bnb", "group_size": 64}, "group_size do nothing with quant_method bnb"),
        ({"quant_method": "fp8", "max_length": 512}, "max_length do nothing with quant_method fp8"),
        ({"quant_method": "gptq", "quant_format": "awq"}, "awq is not a form of quant_method gptq"),
        ({"quant_method": "awq", "quant_bits": 8}, "stores 4 bits"),
        ({"quant_method": "w8a8", "quant_batch_size": 4}, "quant_batch_size does nothing"),
        ({"quant_method": "gptq", "quant_backend": "autoawq"}, "quant_backend do nothing"),
        ({"quant_method": "awq", "quant_backend": "autoawq"}, "needs quant_format awq"),
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
    assert QuantizeSection(quant_method="gptq").bits == 4
    assert QuantizeSection(quant_method="fp8").bits == 8


def test_group_size_divides_the_width_of_every_layer(trained):
    assert group_size(trained, None) == 32  # 32 and 64 wide
    assert group_size(trained, 16) == 16
    with pytest.raises(UsageError, match="does not divide") as caught:
        group_size(trained, 64)
    assert "32 wide" in caught.value.found


def test_awq_of_gptqmodel_is_refused_where_it_would_crash(trained, tmp_path):
    section = QuantizeSection(quant_method="awq", quant_format="awq", min_recovery=0)
    rows = {"sample_rows": ROWS, "calibration_rows": counting_rows(64)}
    with pytest.raises(UsageError, match="layers of this size") as caught:
        quantize_model(trained, tmp_path / "q", section, **rows)
    assert "32 output features" in caught.value.found


def test_calibration_rows_are_spread_and_long_enough():
    rows = [{"input_ids": [row] * 100} for row in range(10)]
    assert [ids[0] for ids in calibration_ids(rows, 5, 80)] == [0, 2, 4, 6, 8]
    assert {len(ids) for ids in calibration_ids(rows, 5, 80)} == {80}
    with pytest.raises(DataError, match="too short") as caught:
        calibration_ids(rows, 5, 10)
    assert "50 tokens in 5 rows" in caught.value.found


AWQ_BY = {"quant_method": "awq", "quant_format": "awq", "quant_backend": "lmdeploy"}


@pytest.mark.parametrize(
    ("settings", "backend"),
    [({"quant_method": "fp8"}, "llmcompressor"), (AWQ_BY, "lmdeploy_lite")],
)
def test_missing_backend_names_the_command_that_installs_it(trained, tmp_path, settings, backend):
    section = QuantizeSection(**settings)
    at = Workplace(tmp_path / "job", Runtime(backends_dir=tmp_path / "none"))
    rows = {"sample_rows": ROWS, "calibration_rows": counting_rows(64)}
    with pytest.raises(BackendMissing) as caught:
        quantize_model(trained, tmp_path / "q", section, workplace=at, **rows)
    assert caught.value.exit_code == 5
    assert f"swift env install {backend}" in caught.value.do


def test_settings_that_a_tool_changes_are_taken_back(trained, tmp_path, monkeypatch):
    before = read_json(trained / "config.json")

    def awq_tool(name, job, work_dir, runtime, progress):
        assert (name, job.group_size, job.rows) == ("lmdeploy_lite", 32, [[1, 2, 3]])
        theirs = {"dtype": "float16", "use_cache": False, "quantization_config": {"bits": 4}}
        write_json(job.out / "config.json", before | theirs)
        write_json(job.out / "generation_config.json", {"do_sample": True})

    monkeypatch.setattr(awq_tools, "write_awq", awq_tool)
    (tmp_path / "q").mkdir()
    at = Workplace(tmp_path / "job", Runtime())
    write_by_backend(trained, tmp_path / "q", QuantizeSection(**AWQ_BY), [[1, 2, 3]], at)
    # The type is that of the weights that were written.
    kept = {"dtype": "float16", "quantization_config": {"bits": 4}}
    assert read_json(tmp_path / "q/config.json") == before | kept
    sampling = [(folder / "generation_config.json") for folder in (trained, tmp_path / "q")]
    assert sampling[1].is_file() == sampling[0].is_file()
    if sampling[0].is_file():
        assert "do_sample" not in read_json(sampling[1])


def test_model_that_nothing_here_can_read_is_refused(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "m")
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"quantization_config": {"quant_method": "gptq"}})
    with pytest.raises(EnvironmentMissing, match="needs gptqmodel to be read"):
        load_model(folder)


def quantized_by_backend(trained, tmp_path, **settings):
    """Quantize twice with the real tool and return the report of the first time."""
    section = QuantizeSection(min_recovery=0.9, **settings)
    rows = {"sample_rows": ROWS, "calibration_rows": counting_rows(64, seed=5)}
    at = Workplace(tmp_path / "job", Runtime())
    report = quantize_model(trained, tmp_path / "a", section, workplace=at, **rows)
    assert 0 < report.kl_divergence < 0.1
    assert report.size_bytes < report.unquantized_size_bytes
    assert model_facts(tmp_path / "a")["parameters"] == model_facts(trained)["parameters"]
    assert str(tmp_path).encode() not in b"".join(folder_bytes(tmp_path / "a").values())
    quantize_model(trained, tmp_path / "b", section, workplace=at, **rows)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


def wide_model(folder):
    """Return a trained model whose layers are as wide as the awq format wants them."""
    shape = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16}
    base = tiny_base(folder / "base", hidden_size=64, **shape)
    return counting_model(base, folder / "model")


@pytest.mark.backend("llmcompressor")
@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "w8a8"])
def test_compressed_tensors_load_with_plain_from_pretrained(trained, tmp_path, method):
    pytest.importorskip("compressed_tensors")
    quantized_by_backend(trained, tmp_path, quant_method=method)


@pytest.mark.backend("gptqmodel")
@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_older_formats_load_in_the_environment_of_their_tool(tmp_path, method):
    quantized_by_backend(wide_model(tmp_path), tmp_path, quant_method=method, quant_format=method)


@pytest.mark.backend("autoawq")
@pytest.mark.backend("lmdeploy_lite")
@pytest.mark.backend("gptqmodel")
@pytest.mark.parametrize("tool", ["autoawq", "lmdeploy"])
def test_what_other_tools_write_as_awq_loads_with_gptqmodel(tmp_path, tool):
    model = wide_model(tmp_path)
    quantized_by_backend(model, tmp_path, **(AWQ_BY | {"quant_backend": tool}))
    config, before = read_json(tmp_path / "a/config.json"), read_json(model / "config.json")
    assert config.pop("quantization_config")["bits"] == 4
    assert {**config, "dtype": before["dtype"]} == before


@pytest.mark.backend("autoawq")
@pytest.mark.backend("lmdeploy_lite")
@pytest.mark.parametrize("tool", ["autoawq", "lmdeploy"])
def test_a_family_that_a_tool_does_not_know_is_refused(tmp_path, tool):
    model = tiny_base(tmp_path / "m")
    other = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    write_json(model / "config.json", read_json(model / "config.json") | other)
    section = QuantizeSection(**(AWQ_BY | {"quant_backend": tool}))
    rows = {"sample_rows": ROWS, "calibration_rows": counting_rows(64)}
    with pytest.raises(UsageError, match="does not know this family"):
        quantize_model(model, tmp_path / "q", section, **rows)


@pytest.mark.backend("llmcompressor")
@pytest.mark.backend("vllm_cpu")
def test_vllm_predicts_the_rows_as_the_record_says(tmp_path):
    # vLLM's attention on a CPU wants heads of 32 features at least.
    shape = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    model = counting_model(tiny_base(tmp_path / "base", hidden_size=64, **shape), tmp_path / "m")
    section = QuantizeSection(quant_method="fp8", min_recovery=0.9)
    report = quantize_model(model, tmp_path / "q", section, sample_rows=ROWS)
    found = float(vllm_perplexity(tmp_path / "q", ROWS, tmp_path / "vllm.log"))
    # vLLM computes in bfloat16.
    assert found == pytest.approx(report.quantized_perplexity, rel=0.03)


def test_importing_torchao_says_nothing(caplog):
    quiet_imports()
    logging.getLogger("torchao").warning("a kernel did not load")
    logging.getLogger("torch.utils._pytree").warning("Calling register_constant() is deprecated")
    logging.getLogger("torch.utils._pytree").warning("something else")
    assert caplog.messages == ["something else"]
