"""Quantize: fewer bits a weight, with the loss of accuracy measured and limited."""

from dataclasses import asdict
from typing import Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.recipe import QuantizeSection, Recipe
from swiftcore.stages.contract import Stage, StageRun
from swiftcore.stages.merge import held_out_rows


def _config(recipe: Recipe) -> dict[str, Any]:
    return {"quantize": section_config(recipe.quantize or QuantizeSection())}


def _run(run: StageRun) -> Produced:
    from swiftcore.export import quantize_model

    section = run.recipe.quantize or QuantizeSection()
    report = quantize_model(
        run.inputs["model"],
        run.area.out,
        section,
        sample_rows=held_out_rows(run.inputs["encoded"], section.quant_n_samples),
        device=run.runtime.resolved_device(),
    )
    fields = asdict(report).items()
    return Produced(metrics={key: float(v) for key, v in fields if isinstance(v, int | float)})


QUANTIZE = Stage("quantize", 1, _config, _run)
