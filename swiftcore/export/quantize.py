"""Storing a model in fewer bits, and measuring what that costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftcore.errors import GateRefused, UsageError
from swiftcore.export.by_backend import Workplace, compare_in_backend, write_by_backend
from swiftcore.export.folder import weight_bytes
from swiftcore.export.quality import Comparison, compare
from swiftcore.export.quantizers import write_quantized
from swiftcore.export.sample_rows import calibration_ids, labelled_rows
from swiftcore.models.files import require_model_folder
from swiftcore.models.loading import is_quantized, load_model
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import Runtime
from swiftcore.recipe.sections import QuantizeSection

_MAX_CALIBRATION_TOKENS = 2048  # of a row, as ms-swift cuts them


@dataclass(frozen=True)
class QuantizeReport:
    """What quantization kept and saved.

    Accuracy is the share of label tokens predicted right from the tokens before them, loss the mean
    cross-entropy of a label token and perplexity its exponential; `kl_divergence` is the mean over
    label tokens, in nats, and `recovery` is quantized_accuracy / unquantized_accuracy. Tokens a
    second are those of reading the rows one by one on this machine.
    """

    recovery: float
    quantized_accuracy: float
    unquantized_accuracy: float
    quantized_loss: float
    unquantized_loss: float
    quantized_perplexity: float
    unquantized_perplexity: float
    kl_divergence: float
    quantized_tokens_per_second: float
    unquantized_tokens_per_second: float
    size_bytes: int
    unquantized_size_bytes: int
    num_rows: int
    num_labels: int


def quantize_model(
    model_dir: Path,
    out_dir: Path,
    section: QuantizeSection,
    *,
    sample_rows: Sequence[Mapping[str, Any]],
    calibration_rows: Sequence[Mapping[str, Any]] = (),
    workplace: Workplace | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> QuantizeReport:
    """Write a quantized model that loads with plain `from_pretrained`, and score it.

    Args:
        model_dir: unquantized model folder.
        out_dir: folder to write into; made if it does not exist.
        section: method, bits and least recovery.
        sample_rows: encoded rows (`input_ids`, `labels` with -100 for no loss) to measure on; the
            first `section.quant_n_samples` are used.
        calibration_rows: encoded rows that gptq, awq and w8a8 learn from; as many are taken.
        workplace: where the backend of gptq, awq, fp8 and w8a8 works.
        device: where the models run.
        progress: told each of the two steps.

    Raises:
        ModelMissing: there is no model in the folder.
        UsageError: it is quantized already, or no row has a label.
        DataError: the calibration rows are too short.
        EnvironmentMissing: the package or the backend of the method is not installed.
        BackendFailed: the backend crashed.
        GateRefused: the recovery is below `section.min_recovery`, or can't be measured.
    """
    watch = progress or Silent()
    require_model_folder(model_dir)
    _refuse_quantized(model_dir)
    rows = labelled_rows(sample_rows, section.quant_n_samples)
    out_dir.mkdir(parents=True, exist_ok=True)
    watch.update(0, 2, f"quantizing to {section.bits} bits with {section.quant_method}")
    at = workplace or Workplace(out_dir.with_name(f"{out_dir.name}.job"), Runtime(), device, watch)
    if section.backend is None:
        write_quantized(model_dir, out_dir, section, device)
    else:
        ids = _calibration(section, calibration_rows)
        write_by_backend(model_dir, out_dir, section, ids, at)
    watch.update(1, 2, "answers of both models")
    if section.is_read_here:
        models = load_model(model_dir, device=device), load_model(out_dir, device=device)
        found = compare(*models, rows, device)
    else:
        found = compare_in_backend(model_dir, out_dir, rows, at)
    recovery = _recovery(found, section.min_recovery)
    watch.update(2, 2, f"recovery {recovery:.3f}")
    return QuantizeReport(
        recovery=recovery,
        quantized_accuracy=found.quantized.accuracy,
        unquantized_accuracy=found.unquantized.accuracy,
        quantized_loss=found.quantized.loss,
        unquantized_loss=found.unquantized.loss,
        quantized_perplexity=found.quantized.perplexity,
        unquantized_perplexity=found.unquantized.perplexity,
        kl_divergence=found.kl_divergence,
        quantized_tokens_per_second=found.quantized.tokens_per_second,
        unquantized_tokens_per_second=found.unquantized.tokens_per_second,
        size_bytes=weight_bytes(out_dir),
        unquantized_size_bytes=weight_bytes(model_dir),
        num_rows=len(rows),
        num_labels=found.num_labels,
    )


def _calibration(section: QuantizeSection, rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    if not section.is_calibrated:
        return []
    length = section.max_length or _MAX_CALIBRATION_TOKENS
    return calibration_ids(rows, section.quant_n_samples, length)


def _refuse_quantized(model_dir: Path) -> None:
    if is_quantized(model_dir):
        raise UsageError(
            "the model is quantized already",
            where=model_dir,
            do="quantize the unquantized model",
        )


def _recovery(comparison: Comparison, least: float) -> float:
    quantized, unquantized = comparison.quantized, comparison.unquantized
    if unquantized.accuracy == 0 and least == 0:
        return 0.0  # nothing to keep, and nothing was asked for
    if unquantized.accuracy == 0:
        raise GateRefused(
            "the recovery can't be measured: the unquantized model predicts no label token right",
            where="quantize",
            found=f"loss {unquantized.loss:.3f} unquantized, {quantized.loss:.3f} quantized",
            do="train the model before it is quantized, or measure on rows that it knows",
        )
    recovery = quantized.accuracy / unquantized.accuracy
    if recovery < least or not math.isfinite(quantized.loss):
        raise GateRefused(
            "the quantized model lost too much",
            where="quantize",
            found=f"recovery {recovery:.3f}: accuracy {quantized.accuracy:.3f} of "
            f"{unquantized.accuracy:.3f}, loss {quantized.loss:.3f} against {unquantized.loss:.3f}",
            expected=f"at least {least:.3f} (quantize.min_recovery)",
            do="use quantize.quant_bits 8 or another method, or leave the quantize section out",
        )
    return recovery
