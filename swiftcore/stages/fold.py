"""Fold: a base model with frozen adapters in its weights, which all later steps start from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Produced
from swiftcore.recipe import Recipe
from swiftcore.stages.contract import Stage, StageRun


def adapter_role(place: int) -> str:
    """Return the role of the adapter at a place of the chain."""
    return f"adapter[{place}]"


def _config(recipe: Recipe) -> dict[str, Any]:
    # Which adapters, and in which order, is in the inputs.
    return {}


def _run(run: StageRun) -> Produced:
    from swiftcore.export.fold import fold_adapters

    count = len(run.recipe.model.frozen_adapters)
    reports = fold_adapters(
        run.inputs["model"],
        [run.inputs[adapter_role(place)] for place in range(count)],
        run.area.out,
        run.area.work,
        device=run.runtime.resolved_device(),
        progress=run.progress,
    )
    return Produced(
        metrics={
            "adapters": float(count),
            "max_logit_difference": max(report.max_logit_difference for report in reports),
        }
    )


def _needs_bytes(inputs: Mapping[str, Path]) -> int:
    """Return the size of the result, and of one model in between."""
    from swiftcore.models import model_facts

    between = 2 if adapter_role(1) in inputs else 1
    return between * model_facts(inputs["model"])["size_bytes"]


FOLD = Stage("fold", 1, _config, _run, needs_bytes=_needs_bytes)
