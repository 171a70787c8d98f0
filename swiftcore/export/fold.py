"""Folding a chain of adapters into a base, each over what those before it made."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from swiftcore.export.merge import MergeReport, merge_adapter
from swiftcore.models.shape import model_shape
from swiftcore.progress import Progress
from swiftcore.recipe.sections import MergeSection

_NUM_ROWS = 4
_ROW_TOKENS = 64


def fold_adapters(
    base_dir: Path,
    adapters: Sequence[Path],
    out_dir: Path,
    work_dir: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[MergeReport]:
    """Write the base with all adapters in its weights, and return how each merge came out.

    The order is the recipe's, first to last. It is part of what comes out: DoRA, IA3 and the
    orthogonal tuners scale or turn the weights they find. Each merge is compared with its adapter.

    Args:
        base_dir: model folder the first adapter was trained on.
        adapters: folders; each was trained over the base with those before it.
        out_dir: folder to write into.
        work_dir: room for the models in between, one at a time.
        device: where the models run.
        progress: told each merge's steps.

    Raises:
        UsageError: the base is quantized, or an adapter was trained over something else.
        GateRefused: a merge changed answers by more than 1e-3.
    """
    rows = _rows(model_shape(base_dir).number("vocab_size"))
    reports: list[MergeReport] = []
    below = base_dir
    for place, adapter in enumerate(adapters):
        target = out_dir if place == len(adapters) - 1 else work_dir / f"below-{place + 1}"
        shutil.rmtree(target, ignore_errors=True)
        section = MergeSection()
        report = merge_adapter(
            below, adapter, target, section, sample_ids=rows, device=device, progress=progress
        )
        reports.append(report)
        if below != base_dir:
            shutil.rmtree(below)
        below = target
    return reports


def _rows(vocabulary: int) -> list[list[int]]:
    """Return token ids from all over the vocabulary; there are no encoded rows yet."""
    stride = max(1, vocabulary // (_NUM_ROWS * _ROW_TOKENS))
    return [
        [(row + place * _NUM_ROWS) * stride % vocabulary for place in range(_ROW_TOKENS)]
        for row in range(_NUM_ROWS)
    ]
