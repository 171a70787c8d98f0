"""Evaluate: every candidate answers the held-out rows; scores, intervals, size and speed."""

from pathlib import Path
from typing import Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.artifacts.digests import files_under
from swiftcore.recipe import EvaluateSection, Recipe
from swiftcore.stages.contract import Stage, StageRun

_CANDIDATES = ("base", "trained", "adapter", "merged", "quantized")


def _config(recipe: Recipe) -> dict[str, Any]:
    return {"evaluate": section_config(recipe.evaluate or EvaluateSection())}


def _run(run: StageRun) -> Produced:
    from swiftcore.data import load_rows
    from swiftcore.evaluation import Candidate, evaluate_candidates
    from swiftcore.generation import TransformersEngine

    base = run.inputs["base"]
    template_dir = run.inputs["encoded"]
    candidates = []
    for name in (name for name in _CANDIDATES if name in run.inputs):
        folder = run.inputs[name]
        adapter = folder if name == "adapter" else None
        model = base if adapter else folder
        size = weights_bytes(model) + (weights_bytes(adapter) if adapter else 0)
        candidates.append(Candidate(name, model, adapter, size))

    def load_engine(candidate: Candidate) -> TransformersEngine:
        return TransformersEngine.load(
            candidate.model_dir,
            adapter_dir=candidate.adapter_dir,
            template_dir=template_dir,
            device=run.runtime.resolved_device(),
            num_threads=run.runtime.threads(),
        )

    dataset = run.inputs["dataset"]
    report = evaluate_candidates(
        run.recipe.evaluate or EvaluateSection(),
        candidates,
        load_rows(dataset, "test"),
        run.area.out,
        load_engine=load_engine,
        train_rows=load_rows(dataset, "train"),
        progress=run.progress,
    )
    return Produced(metrics=report.flat_metrics())


def weights_bytes(folder: Path) -> int:
    """Return the size of a model folder's weight files, in bytes."""
    return sum(f.stat().st_size for f in files_under(folder) if f.suffix == ".safetensors")


EVALUATE = Stage(
    "evaluate", 1, _config, _run, measured=("report*", "metrics.json", "samples/*", "plots/*")
)
