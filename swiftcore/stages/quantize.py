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
    from swiftcore.export import Workplace, quantize_model
    from swiftcore.template import load_encoded

    section = run.recipe.quantize or QuantizeSection()
    device = run.runtime.resolved_device()
    report = quantize_model(
        run.inputs["model"],
        run.area.out,
        section,
        sample_rows=held_out_rows(run.inputs["encoded"], section.quant_n_samples),
        calibration_rows=load_encoded(run.inputs["encoded"], "train"),
        workplace=Workplace(run.area.work, run.runtime, device, run.progress),
        device=device,
        progress=run.progress,
    )
    fields = asdict(report).items()
    return Produced(metrics={key: float(v) for key, v in fields if isinstance(v, int | float)})


QUANTIZE = Stage("quantize", 1, _config, _run)
