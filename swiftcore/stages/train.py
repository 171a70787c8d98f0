"""Train: encoded rows and a model become an adapter or a model, in a process of its own."""

from collections.abc import Callable
from typing import Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.recipe import Recipe
from swiftcore.stages.contract import Stage, StageRun


def _config(recipe: Recipe) -> dict[str, Any]:
    return {
        "train": section_config(recipe.train),
        "tuner": section_config(recipe.tuner),
        "model": section_config(recipe.model, exclude={"model", "scratch"}),
    }


def _run(run: StageRun) -> Produced:
    from swiftcore.training import TrainJob, run_training

    processes = run.runtime.processes()
    job = TrainJob(
        train=run.recipe.train,
        tuner=run.recipe.tuner,
        model_dir=run.inputs["model"],
        encoded_dir=run.inputs["encoded"],
        work_dir=run.area.work,
        out_dir=run.area.out,
        torch_dtype=run.recipe.model.torch_dtype,
        attn_impl=run.recipe.model.attn_impl,
        device=run.runtime.resolved_device(),
        num_threads=run.runtime.threads(processes.per_node),
        num_workers=run.runtime.num_workers,
        peak_flops=1e12 * peak if (peak := run.runtime.peak_tflops) else None,
        processes=processes,
    )
    result = run_training(job, progress=run.progress, on_metrics=_listener(run))
    resumed = None if result.resumed_from is None else f"step {result.resumed_from}"
    return Produced(result.metrics, facts={"notes": result.notes}, resumed_from=resumed)


def _listener(run: StageRun) -> Callable[[dict[str, Any]], None]:
    """Return who hears metric lines: the caller, and an event file where one is asked for."""
    if "tensorboard" not in run.runtime.report_to:
        return run.on_metrics
    from swiftcore.training.tensorboard import EventFile

    folder = run.runtime.logging_dir or run.runtime.store / "tensorboard"
    events = EventFile(folder / f"{run.recipe.name}-{run.area.work.parent.name[:12]}")

    def hear(line: dict[str, Any]) -> None:
        events.add_line(line)
        run.on_metrics(line)

    return hear


TRAIN = Stage("train", 2, _config, _run, measured=("metrics.jsonl", "train.log", "summary.json"))
