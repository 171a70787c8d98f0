"""Folding an adapter into its base, and proof that the result answers the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import GateRefused, UsageError
from swiftcore.export.chat_template import complete_chat_files
from swiftcore.export.folder import complete_folder, stored_dtype_name, weight_bytes
from swiftcore.models.base_record import refuse_other_base
from swiftcore.models.files import read_json, require_adapter_folder, require_model_folder
from swiftcore.models.loading import is_quantized, load_model
from swiftcore.models.quiet import without_progress_bars
from swiftcore.models.tasks import copy_task
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import MergeSection
from swiftcore.tuners import load_adapter, merge_tuner

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class MergeReport:
    """How a merge came out.

    `max_logit_difference` is the largest |merged - adapter| over all logits of the samples, both in
    float32, the merged model as read back from its folder. `chat_template` says where the one in
    the folder came from.
    """

    max_logit_difference: float
    num_samples: int
    num_tokens: int
    dtype: str
    size_bytes: int
    chat_template: str


def merge_adapter(
    base_dir: Path,
    adapter_dir: Path,
    out_dir: Path,
    section: MergeSection,
    *,
    sample_ids: Sequence[Sequence[int]],
    device: str = "cpu",
    progress: Progress | None = None,
) -> MergeReport:
    """Write the base with the adapter's update in its weights, as a model that loads without peft.

    For LoRA that is base + scale * B @ A for each adapted layer. The sum is made in float32 and
    stored in the base's type.

    Args:
        base_dir: model folder the adapter was trained on.
        adapter_dir: adapter folder.
        out_dir: folder to write into; made if it does not exist.
        section: shard size and tolerance.
        sample_ids: token ids of the rows that both models are compared on.
        device: where the models run.
        progress: told each of the four steps.

    Raises:
        ModelMissing: base or adapter is not there.
        UsageError: the base is quantized or not the one the adapter was trained on, or there is no
            sample to compare on.
        GateRefused: the logits differ by more than the section allows.
    """
    import torch

    watch = progress or Silent()
    require_model_folder(base_dir)
    require_adapter_folder(adapter_dir)
    _refuse_quantized(base_dir)
    refuse_other_base(base_dir, adapter_dir)
    if not sample_ids:
        raise UsageError(
            "a merge can't be verified without a sample",
            where="merge",
            do="give at least one row of token ids",
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    watch.update(0, 4, "loading base and adapter")
    stored = stored_dtype_name(base_dir)
    adapted = load_adapter(base_dir, adapter_dir, dtype=torch.float32, device=device)
    watch.update(1, 4, "answers of the adapter")
    expected = _logits(adapted, sample_ids, device)
    watch.update(2, 4, "merging")
    merged = merge_tuner(adapted).to(getattr(torch, stored))
    with without_progress_bars():
        merged.save_pretrained(out_dir, max_shard_size=section.max_shard_size)
    complete_folder(out_dir, base_dir, adapter_dir)
    copy_task(adapter_dir, out_dir)
    chat_template = complete_chat_files(out_dir)
    del adapted, merged
    watch.update(3, 4, "comparing")
    reloaded = load_model(out_dir, dtype=torch.float32, device=device)
    difference = _largest_difference(expected, _logits(reloaded, sample_ids, device))
    _refuse_difference(difference, section.max_logit_difference, stored)
    watch.update(4, 4, f"largest logit difference {difference:.1e}")
    return MergeReport(
        max_logit_difference=difference,
        num_samples=len(sample_ids),
        num_tokens=sum(map(len, sample_ids)),
        dtype=stored,
        size_bytes=weight_bytes(out_dir),
        chat_template=chat_template,
    )


def _logits(model: "nn.Module", sample_ids: Sequence[Sequence[int]], device: str) -> "list[Tensor]":
    import torch

    with torch.no_grad():
        return [
            _scores(model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False))
            for ids in sample_ids
        ]


def _scores(outputs: Any) -> "Tensor":
    """Return the logits of a row, or the hidden states where a model ends with them."""
    found = outputs.logits if hasattr(outputs, "logits") else outputs.last_hidden_state
    return found[0].float().cpu()


def _largest_difference(expected: "list[Tensor]", found: "list[Tensor]") -> float:
    pairs = zip(expected, found, strict=True)
    differences = [float((a - b).abs().max()) for a, b in pairs]
    # max() may pass over a NaN.
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def _refuse_difference(difference: float, limit: float, dtype: str) -> None:
    if difference <= limit:
        return
    rounding = dtype not in ("float32", "float64")
    raise GateRefused(
        "the merged model does not answer as the adapter does",
        where="merge",
        found=f"largest logit difference {difference:.3g}, stored as {dtype}",
        expected=f"at most {limit:.3g} (merge.max_logit_difference)",
        do=(
            f"weights stored as {dtype} are rounded: allow for it in merge.max_logit_difference, "
            "or use a float32 base"
            if rounding
            else "report this: in float32 a merge should be exact to about 1e-5"
        ),
    )


def _refuse_quantized(base_dir: Path) -> None:
    if is_quantized(base_dir):
        raise UsageError(
            "an adapter can't be merged into a quantized base: the sum would be rounded away",
            where=base_dir,
            found=read_json(base_dir / "config.json")["quantization_config"].get("quant_method"),
            expected="the unquantized revision of the same model",
            do="merge into that one, then quantize the result",
        )
