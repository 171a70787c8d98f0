"""Train: encoded rows and a model become an adapter or a model, in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.errors import UsageError
from swiftcore.recipe import Recipe, Runtime, TrainSection
from swiftcore.stages.contract import Stage, StageRun

if TYPE_CHECKING:
    from swiftcore.training import TrainJob


# What these say is in the model and the adapter that the stage is given.
_OF_THE_BASE = {
    "model",
    "scratch",
    "adapters",
    "frozen_adapters",
    "rope_scaling",
    "max_model_len",
    "new_special_tokens",
}


def _config(recipe: Recipe) -> dict[str, Any]:
    return {
        "train": section_config(recipe.train) | _named_files(recipe.train),
        "tuner": section_config(recipe.tuner),
        "model": section_config(recipe.model, exclude=_OF_THE_BASE),
    }


def _named_files(train: TrainSection) -> dict[str, Any]:
    """Return what the files hold that the section names: that is identity, not where they lie."""
    found: dict[str, Any] = {}
    if train.resume_from_checkpoint is not None:
        from swiftcore.training.resuming import checkpoint_digest

        found["resume_from_checkpoint"] = checkpoint_digest(train.resume_from_checkpoint)
    if train.external_plugins:
        from swiftcore.training.plugins import plugin_digests

        found["external_plugins"] = plugin_digests(train.external_plugins)
    return found


def _run(run: StageRun) -> Produced:
    from swiftcore.training import run_training

    job = train_job(
        run.recipe,
        run.runtime,
        run.inputs["model"],
        run.inputs["encoded"],
        work_dir=run.area.work,
        out_dir=run.area.out,
        adapter_dir=run.inputs.get("adapter"),
    )
    result = run_training(job, progress=run.progress, on_metrics=_listener(run))
    resumed = None if result.resumed_from is None else f"step {result.resumed_from}"
    return Produced(result.metrics, facts={"notes": result.notes}, resumed_from=resumed)


def train_job(
    recipe: Recipe,
    runtime: Runtime,
    model_dir: Path,
    encoded_dir: Path,
    *,
    work_dir: Path,
    out_dir: Path,
    adapter_dir: Path | None = None,
) -> "TrainJob":
    """Return the training that a recipe asks for, on this machine."""
    from swiftcore.models.quantizing import LoadQuantization
    from swiftcore.training import TrainJob

    peak, processes = runtime.peak_tflops, runtime.processes()
    return TrainJob(
        train=recipe.train,
        tuner=recipe.tuner,
        task=recipe.model.task,
        model_dir=model_dir,
        encoded_dir=encoded_dir,
        work_dir=work_dir,
        out_dir=out_dir,
        adapter_dir=adapter_dir,
        torch_dtype=recipe.model.torch_dtype,
        attn_impl=recipe.model.attn_impl,
        quantization=LoadQuantization.of(recipe.model),
        device=runtime.resolved_device(),
        num_threads=runtime.threads(processes.per_node),
        num_workers=runtime.dataloader_num_workers,
        pin_memory=runtime.dataloader_pin_memory,
        persistent_workers=runtime.dataloader_persistent_workers,
        prefetch_factor=runtime.dataloader_prefetch_factor,
        peak_flops=1e12 * peak if peak else None,
        check_memory=runtime.check_memory,
        processes=processes,
        async_save=runtime.async_save and _saves_in_background(recipe.train),
        keep_freed_memory=runtime.keep_freed_memory,
    )


def _saves_in_background(train: TrainSection) -> bool:
    """Return True.

    Raises:
        UsageError: there is nothing to write while training goes on.
    """
    found = None
    if train.save_strategy == "no":
        found = "train.save_strategy no"
    if train.deepspeed is not None:
        found = "train.deepspeed, whose engine writes its state by itself"
    if found is not None:
        raise UsageError(
            "runtime.async_save does nothing here",
            where="runtime.async_save",
            found=found,
            expected="checkpoints that this project writes",
            do="leave it out",
        )
    return True


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


TRAIN = Stage("train", 4, _config, _run, measured=("metrics.jsonl", "train.log", "summary.json"))
