"""Storing a model in 4 or 8 bits with bitsandbytes, and measuring what that costs.

On a CPU, bitsandbytes repacks its 4-bit weights in the first forward without gradients, and what is
saved after that can't be read back right. So the model is saved before it has run at all.

Source: Dettmers et al. 2023, QLoRA (arXiv:2305.14314) for NF4; Dettmers et al. 2022, LLM.int8()
(arXiv:2208.07339).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import GateRefused, UsageError
from swiftcore.export.folder import complete_folder, stored_dtype_name, weight_bytes
from swiftcore.models.files import require_model_folder
from swiftcore.models.loading import is_quantized, load_model
from swiftcore.models.quantizing import LoadQuantization
from swiftcore.models.quiet import without_progress_bars
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import QuantizeSection

if TYPE_CHECKING:
    from torch import nn

_IGNORED = -100


@dataclass(frozen=True)
class _Score:
    """How well a model predicts the label tokens of the sample rows, given the tokens before."""

    accuracy: float
    loss: float


@dataclass(frozen=True)
class QuantizeReport:
    """What quantization kept and saved.

    Accuracy is the share of label tokens predicted right from the tokens before them, loss the mean
    cross-entropy of a label token; `recovery` is quantized_accuracy / unquantized_accuracy.
    """

    recovery: float
    quantized_accuracy: float
    unquantized_accuracy: float
    quantized_loss: float
    unquantized_loss: float
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
    device: str = "cpu",
    progress: Progress | None = None,
) -> QuantizeReport:
    """Write a quantized model that loads with plain `from_pretrained`, and score it.

    Embeddings and the output head stay as they are, so tied ones stay tied.

    Args:
        model_dir: unquantized model folder.
        out_dir: folder to write into; made if it does not exist.
        section: method, bits and least recovery.
        sample_rows: encoded rows (`input_ids`, `labels` with -100 for no loss) to measure on; the
            first `section.quant_n_samples` are used.
        device: where the models run.
        progress: told each of the three steps.

    Raises:
        ModelMissing: there is no model in the folder.
        UsageError: it is quantized already, or no row has a label.
        EnvironmentMissing: bitsandbytes is not installed.
        GateRefused: the recovery is below `section.min_recovery`, or can't be measured.
    """
    watch = progress or Silent()
    require_model_folder(model_dir)
    _refuse_quantized(model_dir)
    rows = _labelled(sample_rows, section.quant_n_samples)
    out_dir.mkdir(parents=True, exist_ok=True)
    watch.update(0, 3, "answers of the unquantized model")
    unquantized = _score(load_model(model_dir, device=device), rows, device)
    watch.update(1, 3, f"quantizing to {section.quant_bits} bits")
    _write_quantized(model_dir, out_dir, section, device)
    watch.update(2, 3, "answers of the quantized model")
    quantized = _score(load_model(out_dir, device=device), rows, device)
    recovery = _recovery(quantized, unquantized, section.min_recovery)
    watch.update(3, 3, f"recovery {recovery:.3f}")
    return QuantizeReport(
        recovery=recovery,
        quantized_accuracy=quantized.accuracy,
        unquantized_accuracy=unquantized.accuracy,
        quantized_loss=quantized.loss,
        unquantized_loss=unquantized.loss,
        size_bytes=weight_bytes(out_dir),
        unquantized_size_bytes=weight_bytes(model_dir),
        num_rows=len(rows),
        num_labels=sum(_num_labels(row) for row in rows),
    )


def _write_quantized(model_dir: Path, out_dir: Path, section: QuantizeSection, device: str) -> None:
    from transformers import AutoModelForCausalLM

    wanted = LoadQuantization(
        bits=section.quant_bits,
        quant_type=section.bnb_4bit_quant_type,
        double_quant=section.bnb_4bit_use_double_quant,
        compute_dtype=section.bnb_4bit_compute_dtype,
    )
    config = wanted.config(stored_dtype_name(model_dir))
    with without_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype="auto",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            quantization_config=config,
            device_map={"": device},
        )
        model.save_pretrained(out_dir)
    complete_folder(out_dir, model_dir)


def _refuse_quantized(model_dir: Path) -> None:
    if is_quantized(model_dir):
        raise UsageError(
            "the model is quantized already",
            where=model_dir,
            do="quantize the unquantized model",
        )


def _labelled(sample_rows: Sequence[Mapping[str, Any]], limit: int) -> list[Mapping[str, Any]]:
    rows = [row for row in sample_rows if _num_labels(row)][:limit]
    if not rows:
        raise UsageError(
            "the recovery can't be measured: no sample row has a label",
            where="quantize",
            found=f"{len(sample_rows)} rows",
            do="give encoded rows with labels, for example the validation split",
        )
    return rows


def _num_labels(row: Mapping[str, Any]) -> int:
    return sum(label != _IGNORED for label in row["labels"][1:])


def _score(model: "nn.Module", rows: list[Mapping[str, Any]], device: str) -> _Score:
    import torch
    from torch.nn import functional

    right, labels, loss = 0, 0, 0.0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row["input_ids"]], device=device)
            target_T = torch.tensor(row["labels"][1:], device=device)
            chosen_T = target_T != _IGNORED
            logits_NV = model(input_ids=ids, use_cache=False).logits[0, :-1][chosen_T].float()
            target_N = target_T[chosen_T]
            right += int((logits_NV.argmax(-1) == target_N).sum())
            loss += float(functional.cross_entropy(logits_NV, target_N, reduction="sum"))
            labels += len(target_N)
    return _Score(accuracy=right / labels, loss=loss / labels)


def _recovery(quantized: _Score, unquantized: _Score, least: float) -> float:
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
            do="use quantize.quant_bits 8, or leave the quantize section out",
        )
    return recovery
