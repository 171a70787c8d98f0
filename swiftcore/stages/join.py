"""Join: several datasets that were encoded before become one.

They must have been encoded alike: `cached` checks each against the recipe.
"""

from typing import Any

from swiftcore.artifacts import Produced
from swiftcore.recipe import Recipe
from swiftcore.stages.contract import Stage, StageRun


def _config(recipe: Recipe) -> dict[str, Any]:
    return {}


def _run(run: StageRun) -> Produced:
    from swiftcore.template.joined import join_encoded

    rows = join_encoded(list(run.inputs.values()), run.area.out)
    return Produced(metrics={f"{split}_rows": float(count) for split, count in rows.items()})


JOIN = Stage("join", 1, _config, _run)
