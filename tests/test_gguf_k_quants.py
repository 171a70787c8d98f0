"""k-quants: llama.cpp's own types, made and read back by it, or nothing is written."""

import json
import shutil

import numpy as np
import pytest
import torch
from training_setup import counting_model, tiny_base

from swiftcore.backends.llama_cpp.adapter import QuantizedFile, QuantizeFileJob, quantize_file
from swiftcore.errors import BackendMissing, GateRefused, StoreFull, UsageError
from swiftcore.export.gguf import export_gguf, k_quants
from swiftcore.export.gguf.checking import CHECK_TEXTS, check_rows, deviation, logits_of
from swiftcore.models import load_model, load_tokenizer
from swiftcore.progress import Silent
from swiftcore.recipe import Runtime
from tests.roads import swift_here

pytest.importorskip("gguf")
pytestmark = pytest.mark.road
# Bits a weight of llama.cpp's blocks, scales included.
BITS = {"q4_k_m": 4.5, "q5_k_m": 5.5, "q6_k": 6.5625, "f32": 32}


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def any_family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return counting_model(wide_base(folder / "base", request.param), folder / "model")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return wide_base(tmp_path_factory.mktemp("k_quants") / "model", "qwen3")


def wide_base(folder, family):
    """Return a model whose rows hold whole blocks of 256 weights."""
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    return tiny_base(
        folder, architecture=family, num_key_value_heads=2, head_dim=64, initializer_range=0.1,
        **shape,
    )  # fmt: skip


def in_place_of_llama_cpp(monkeypatch, tmp_path, model, *, tokens=None, noise=0.0):
    """Let a function stand in for the backend's job: the plain file is the result."""
    rows = check_rows(load_tokenizer(model))
    logits = [row.numpy() for row in logits_of(load_model(model, dtype="float32"), rows)]

    def job(order, work_dir, runtime, progress):
        assert (order.outtype, order.rows) == ("Q4_K_M", rows)
        shutil.copy(order.source, order.out)
        shift = np.random.default_rng(0).normal(size=logits[0].shape[1]).astype(np.float32)
        np.savez(order.logits, *(row + noise * shift for row in logits))
        return QuantizedFile(version="0", tokens=tokens or rows)

    class Installed:
        def in_use(self, *, install):
            return pytest.MonkeyPatch.context()

    monkeypatch.setattr(k_quants, "quantize_file", job)
    monkeypatch.setattr(k_quants, "open_environment", lambda *_: Installed())
    monkeypatch.setattr(k_quants.tempfile, "tempdir", str(tmp_path))


def test_a_file_that_reads_back_as_the_model_is_kept(model, tmp_path, monkeypatch):
    in_place_of_llama_cpp(monkeypatch, tmp_path, model)
    report = export_gguf(model, tmp_path / "out/m.gguf", "q4_k_m")
    assert (report.outtype, report.pre_tokenizer) == ("q4_k_m", "qwen2")
    assert report.kl_divergence == pytest.approx(0, abs=1e-9)
    assert report.perplexity == pytest.approx(report.unquantized_perplexity)
    assert report.size_bytes == report.path.stat().st_size
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"tokens": [[1], [2]]}, "makes other tokens"), ({"noise": 5.0}, "does not answer as")],
)
def test_a_file_that_reads_back_otherwise_is_refused(model, tmp_path, monkeypatch, wrong, words):
    in_place_of_llama_cpp(monkeypatch, tmp_path, model, **wrong)
    with pytest.raises(GateRefused, match=words):
        export_gguf(model, tmp_path / "out/m.gguf", "q4_k_m")
    assert list((tmp_path / "out").iterdir()) == []


def test_perplexity_and_divergence_are_those_of_the_definition(model):
    rows = check_rows(load_tokenizer(model))
    expected = logits_of(load_model(model, dtype="float32"), rows)
    found = deviation(expected, [row * 0.5 for row in expected], rows)
    divergence = log_likelihood = 0.0
    for ids, row in zip(rows, expected, strict=True):
        p, q = (scaled.double().softmax(-1) for scaled in (row, row * 0.5))
        divergence += float((p * (p / q).log()).sum())
        log_likelihood += float(q[range(len(ids) - 1), ids[1:]].log().sum())
    assert found.kl_divergence == pytest.approx(divergence / sum(map(len, rows)), rel=1e-4)
    mean = log_likelihood / sum(len(ids) - 1 for ids in rows)
    assert found.perplexity == pytest.approx(np.exp(-mean), rel=1e-4)
    assert found.kl_divergence > 1e-3


def test_what_can_not_be_made_is_said_before_anything_is_written(model, tmp_path, monkeypatch):
    file = tmp_path / "out/m.gguf"
    with pytest.raises(BackendMissing, match="swift env install llama_cpp"):
        export_gguf(model, file, "q5_k_m", runtime=Runtime(backends_dir=tmp_path / "none"))
    with pytest.raises(UsageError, match="can be stored as q6_k"):
        export_gguf(tiny_base(tmp_path / "narrow"), file, "q6_k")
    in_place_of_llama_cpp(monkeypatch, tmp_path, model)
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(k_quants.shutil, "disk_usage", lambda _: free)
    with pytest.raises(StoreFull, match="no room for the GGUF file"):
        export_gguf(model, file, "q4_k_m")
    assert not file.parent.exists() or list(file.parent.iterdir()) == []


@pytest.mark.backend("llama_cpp")
def test_llama_cpp_answers_nearly_as_the_model(any_family, tmp_path):
    reports = {
        outtype: export_gguf(any_family, tmp_path / f"{outtype}.gguf", outtype)
        for outtype in ("q4_k_m", "q5_k_m", "q6_k", "f32")
    }
    divergences = [reports[name].kl_divergence for name in BITS]
    assert divergences == sorted(divergences, reverse=True)
    assert divergences[0] < 0.2
    sizes = [reports[name].size_bytes for name in BITS]
    assert sizes == sorted(sizes)
    # K_M mixes in types of more bits, and norms stay in float32.
    whole = reports["f32"].size_bytes
    for name in ("q4_k_m", "q5_k_m", "q6_k"):
        assert BITS[name] / 32 < reports[name].size_bytes / whole < 2 * BITS[name] / 32
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f"{n}.gguf" for n in BITS)


@pytest.mark.backend("llama_cpp")
def test_llama_cpp_reads_our_plain_file_as_transformers_reads_the_folder(any_family, tmp_path):
    export_gguf(any_family, tmp_path / "f32.gguf", "f32")
    tokenizer = load_tokenizer(any_family)
    rows = check_rows(tokenizer)
    order = QuantizeFileJob(
        source=tmp_path / "f32.gguf",
        out=tmp_path / "q8_0.gguf",
        outtype="Q8_0",
        texts=list(CHECK_TEXTS),
        rows=rows,
        logits=tmp_path / "logits.npz",
        threads=1,
    )
    done = quantize_file(order, tmp_path / "job", Runtime(), Silent())
    assert done.tokens == rows
    with np.load(order.logits) as arrays:
        theirs = [torch.from_numpy(arrays[name]) for name in arrays.files]
    ours = logits_of(load_model(any_family, dtype="float32"), rows)
    # A swapped layout is a hundred times farther away than 8 bits' rounding.
    assert deviation(ours, theirs, rows).kl_divergence < 5e-3


@pytest.mark.backend("llama_cpp")
def test_a_modelfile_names_the_quantized_file(model, tmp_path):
    from swiftcore.template import get_template, write_template_settings

    folder = shutil.copytree(model, tmp_path / "m")
    write_template_settings(folder, get_template("chatml", load_tokenizer(folder)).settings)
    out = tmp_path / "out"
    flags = ("--to_ollama", "true", "--to_gguf", "q4_k_m", "--output_dir", out, "--json")
    done = swift_here("export", "--model", folder, *flags)
    assert done.returncode == 0, done.stderr
    assert (out / "Modelfile").read_text().startswith("FROM ./model-q4_k_m.gguf\n")
    told = json.loads(done.stdout)
    assert 0 < told["kl_divergence"] < 0.1
    assert told["size_bytes"] == (out / "model-q4_k_m.gguf").stat().st_size
    assert told["perplexity"] == pytest.approx(told["unquantized_perplexity"], rel=0.1)
