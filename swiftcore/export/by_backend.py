"""Quantizing in the environment of a backend; the folder is completed here."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.export import quality
from swiftcore.export.folder import complete_folder, sort_metadata
from swiftcore.export.quality import Comparison, Score
from swiftcore.models.facts import safetensors_header
from swiftcore.models.files import read_json, write_json
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import Runtime
from swiftcore.recipe.sections import QuantizeSection

_DEFAULT_GROUPS = (128, 64, 32, 16)
_AWQ_ROWS = 64
# Matrices that stay as they are.
_WHOLE = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class Workplace:
    """Where a backend works, and who hears of it.

    Args:
        folder: keeps the job's order, answer and log.
        runtime: says where the environments are and whether one may be installed.
        device: where the model runs.
        progress: told the steps of the job.
    """

    folder: Path
    runtime: Runtime
    device: str = "cpu"
    progress: Progress = field(default_factory=Silent)


def write_by_backend(
    model_dir: Path,
    out_dir: Path,
    section: QuantizeSection,
    rows: list[list[int]],
    at: Workplace,
) -> None:
    """Let the section's backend write the quantized model.

    Args:
        model_dir: unquantized model folder.
        out_dir: folder to write into.
        section: method, format, bits and group size.
        rows: token ids to calibrate with; none for fp8.
        at: where the backend works.

    Raises:
        UsageError: the group size does not divide the model's widths.
        BackendMissing: the backend is not installed.
        BackendFailed: it crashed.
    """
    method = section.quant_method
    order: dict[str, Any] = {
        "model": model_dir.absolute(),
        "out": out_dir.absolute(),
        "device": at.device,
        "group_size": None,
        "rows": rows,
    }
    how = {"method": method, "bits": section.bits}
    if method in ("gptq", "awq"):
        order["group_size"] = group_size(model_dir, section.group_size)
    if section.backend == "llmcompressor":
        from swiftcore.backends.llmcompressor.adapter import CompressJob, compress

        compress(CompressJob(**order, **how), at.folder, at.runtime, at.progress)
    elif section.backend == "gptqmodel":
        from swiftcore.backends.gptqmodel.adapter import QuantizeJob, quantize

        if method == "awq":
            _refuse_odd_rows(model_dir)
        job = QuantizeJob(batch_size=section.quant_batch_size or 1, **order, **how)
        quantize(job, at.folder, at.runtime, at.progress)
        _remove_traces(out_dir)
    else:
        from swiftcore.backends.awq_tools import AwqJob, write_awq

        assert section.backend is not None
        write_awq(section.backend, AwqJob(**order), at.folder, at.runtime, at.progress)
        _restore_settings(model_dir, out_dir)
    sort_metadata(out_dir)
    complete_folder(out_dir, model_dir)


def _restore_settings(model_dir: Path, out_dir: Path) -> None:
    """Take back what AutoAWQ and LMDeploy change: the cache switched off, sampling switched on."""
    written = read_json(out_dir / "config.json")
    theirs = {name: written[name] for name in ("dtype", "quantization_config")}
    write_json(out_dir / "config.json", read_json(model_dir / "config.json") | theirs)
    (out_dir / "generation_config.json").unlink(missing_ok=True)
    if (model_dir / "generation_config.json").is_file():
        shutil.copy(model_dir / "generation_config.json", out_dir)


def _remove_traces(out_dir: Path) -> None:
    """Remove the times and temporary folders that GPTQModel writes beside a model."""
    (out_dir / "quant_log.csv").unlink(missing_ok=True)
    for name in ("config.json", "quantize_config.json"):
        config = read_json(out_dir / name)
        config.get("quantization_config", config).pop("meta", None)
        write_json(out_dir / name, config)


def compare_in_backend(
    model_dir: Path, out_dir: Path, rows: Sequence[Mapping[str, Any]], at: Workplace
) -> Comparison:
    """Compare both models in GPTQModel's environment, which alone reads its formats."""
    from swiftcore.backends.gptqmodel.adapter import CompareJob, compare

    job = CompareJob(
        model=model_dir.absolute(),
        out=out_dir.absolute(),
        device=at.device,
        rows=[{name: list(row[name]) for name in ("input_ids", "labels")} for row in rows],
        measuring_code=Path(quality.__file__),
    )
    found = compare(job, at.folder, at.runtime, at.progress)
    return Comparison(
        unquantized=Score(**found.unquantized.model_dump()),
        quantized=Score(**found.quantized.model_dump()),
        kl_divergence=found.kl_divergence,
        num_labels=found.num_labels,
    )


def group_size(model_dir: Path, wanted: int | None) -> int:
    """Return how many weights of a row share a scale.

    Raises:
        UsageError: it does not divide the width of every layer.
    """
    widths = {shape[-1]: name for name, shape in _matrices(model_dir).items()}
    for size in (wanted,) if wanted else _DEFAULT_GROUPS:
        if all(width % size == 0 for width in widths):
            return size
    odd = min(width for width in widths if width % (wanted or _DEFAULT_GROUPS[-1]))
    raise UsageError(
        "the group size does not divide the width of every layer",
        where="quantize.group_size",
        found=f"{wanted or 'none of 128, 64, 32, 16'}, and {widths[odd]} is {odd} wide",
        expected="a divisor of every layer's width",
        do="set quantize.group_size to one, or use quant_method fp8, w8a8 or bnb",
    )


def _refuse_odd_rows(model_dir: Path) -> None:
    """GPTQModel 7.7 searches AWQ's clipping in blocks of output features, and asserts they fit."""
    for name, (rows, _) in _matrices(model_dir).items():
        if rows % _AWQ_ROWS:
            raise UsageError(
                "gptqmodel can't quantize layers of this size with awq",
                where="quantize.quant_format",
                found=f"{name} has {rows} output features",
                expected=f"a multiple of {_AWQ_ROWS}",
                do="leave quant_format out: llmcompressor's awq has no such limit",
            )


def _matrices(model_dir: Path) -> dict[str, list[int]]:
    """Return the shapes of the matrices that are quantized, by name."""
    return {
        name: entry["shape"]
        for file in sorted(model_dir.glob("*.safetensors"))
        for name, entry in safetensors_header(file).items()
        if len(entry["shape"]) == 2 and not any(part in name for part in _WHOLE)
    }
