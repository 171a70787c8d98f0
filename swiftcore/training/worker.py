"""A training process: `python -m swiftcore.training.worker JOB.json PARENT_PID [NUMBER]`.

It reports through files in the job's `work_dir` (see `workspace`): started.json, metrics.jsonl, and
at the end either result.json or failure.json. Of several processes on a machine, number 0 does, and
the others write nothing but why they failed.
"""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from swiftcore.errors import Cancelled
from swiftcore.lazy import import_without, uncollected
from swiftcore.models.base_record import refuse_other_base
from swiftcore.models.loading import is_quantized
from swiftcore.models.quiet import quiet_imports
from swiftcore.processes import die_with_parent
from swiftcore.template import EncodedRows
from swiftcore.training import checkpoints
from swiftcore.training.distributed.world import AgreedStop, World, agreed_checkpoint, is_echo
from swiftcore.training.estimate import gib
from swiftcore.training.failures import as_swift_error
from swiftcore.training.host_memory import keep_freed_memory
from swiftcore.training.job import TrainJob, TrainResult
from swiftcore.training.metrics import Line, MetricsLog, read_lines
from swiftcore.training.plugins import load_plugins
from swiftcore.training.resuming import named_checkpoint
from swiftcore.training.room import describe, free_memory, require_memory
from swiftcore.training.rows import read_rows
from swiftcore.training.stopping import StopRequest
from swiftcore.training.targets import check_targets, require_trainable
from swiftcore.training.workspace import Workspace, write_atomically


def main(arguments: Sequence[str]) -> int:
    """Train as the job file says and return the exit code."""
    job_file, parent_pid = Path(arguments[0]), int(arguments[1])
    number = int(arguments[2]) if len(arguments) > 2 else 0
    die_with_parent(parent_pid)
    quiet_imports()
    stop = StopRequest()
    stop.listen()
    job = TrainJob.model_validate_json(job_file.read_text(encoding="utf-8"))
    files = Workspace(job.work_dir)
    try:
        _hide_unused_packages(job)
        known = keep_freed_memory() if job.keep_freed_memory and job.device == "cpu" else []
        result = train(job, files, stop, number, known)
    except Exception as err:
        traceback.print_exc()
        error = as_swift_error(err, where=files.log_of(number))
        report = {**error.as_dict(), "echo": is_echo(err), "time": time.time()}
        write_atomically(files.failure_of(number), report)
        return error.exit_code
    if number == 0:
        write_atomically(files.result, result.model_dump(mode="json"))
    return 0


def train(
    job: TrainJob,
    files: Workspace,
    asked: StopRequest,
    number: int = 0,
    known: Sequence[str] = (),
) -> TrainResult:
    """Train in this process, from the newest verified checkpoint on, and return what came of it.

    Args:
        job: what to train.
        files: where to report.
        asked: set when somebody asks this process to end.
        number: of this process on its machine.
        known: notes on this process, to begin those on the training with.
    """
    train_rows = require_trainable(read_rows(job.encoded_dir, "train"), "train", job)
    eval_rows = read_rows(job.encoded_dir, "val")
    if eval_rows and not job.task.is_text:
        check_targets(eval_rows, "val", job)
    _stop_if_asked(asked, None)

    _import_libraries()
    import torch

    torch.set_num_threads(job.num_threads)

    from swiftcore.training.arguments import last_step, total_steps, training_arguments
    from swiftcore.training.batches import plan_batches
    from swiftcore.training.distributed.sharing import share_batches, shared_objective
    from swiftcore.training.distributed.strategies import strategy_for
    from swiftcore.training.objectives import objective_for
    from swiftcore.training.optimizers import check_optimization, describe_optimization
    from swiftcore.training.outputs import write_outputs
    from swiftcore.training.peak import emulation_note
    from swiftcore.training.scored import resolved_job
    from swiftcore.training.token_group import TokenGroup
    from swiftcore.training.token_sharing import share_tokens
    from swiftcore.training.trainer import SwiftTrainer
    from swiftcore.tuners import count_parameters

    check_optimization(job)
    load_plugins(job.train.external_plugins)
    world = World.join(job, number)
    stop = AgreedStop(asked, world)
    strategy = strategy_for(job, world)
    batches = plan_batches(job, train_rows, eval_rows)
    steps = last_step(job, len(batches.order))
    args = training_arguments(job, total_steps(job, len(batches.order)), bool(eval_rows))
    _require_room(job, min(batches.capacity, sum(train_rows.lengths)))
    model, tokenizer = _prepared_model(job, steps, train_rows)
    job = resolved_job(job, model)
    # Of a multimodal model, the language model has this setting.
    text_config = model.config.get_text_config()
    use_cache = getattr(text_config, "use_cache", None)
    _stop_if_asked(asked, None)
    # Folded first, so that what is shown of rows side by side is shown of the model that trains.
    folding = _folded(model, job)
    held = [job.quantization.describe()] if job.quantization else []
    if job.adapter_dir is not None:
        held.append(f"goes on with the adapter {job.adapter_dir.name}")
    group = TokenGroup.of(world)
    held += emulation_note(job.device, job.torch_dtype)
    notes = [*known, *held, *_side_by_side(model, batches), *folding]
    if group is not None:
        notes.append(share_tokens(model, group, world, batches.longest))
    objective = objective_for(
        job, tokenizer=tokenizer, side_by_side=batches.side_by_side, group=group, world=world
    )
    trainer = SwiftTrainer(
        model,
        args,
        job=job,
        batches=share_batches(batches, args, world),
        objective=shared_objective(objective, world),
        stop=stop,
        world=world,
        strategy=strategy,
        last_step=steps,
    )
    notes += [*trainer.notes, *filter(None, [strategy.describe()])]
    notes += describe_optimization(model, job)
    found = agreed_checkpoint(lambda limit: _checkpoint(job, files, steps, notes, limit), world)
    begun = {
        "pid": os.getpid(),
        "pids": world.gather(os.getpid()),
        "total_steps": steps,
        "resumed_from": found.step if found else None,
        "notes": notes,
    }
    if world.leads:
        write_atomically(files.started, begun)
    _run(trainer, found)
    if not trainer.is_finished(trainer.state.global_step):
        _stop_if_asked(stop, trainer.state.global_step)
    if job.train.load_best_model_at_end:
        notes.append(trainer.take_best())
    strategy.unshard(model)
    count = count_parameters(model)
    # The trainer switches the cache off for training; a model saved so would generate slowly.
    if use_cache is not None:
        text_config.use_cache = use_cache
    lines = read_lines(files.metrics)
    if world.leads:
        write_outputs(_in_stored_type(model, job), job, lines)
    world.gather(None)
    tally = trainer.tally
    metrics: dict[str, Any] = {
        "train_loss": tally.total_loss / tally.total_steps,
        "first_loss": tally.first_loss,
        "last_loss": tally.last_loss,
        "eval_loss": tally.last_eval_loss,
        "best_step": tally.best_step,
        "best_metric": tally.best_metric,
        "steps": tally.total_steps,
        "tokens": tally.tokens,
        "label_tokens": tally.label_tokens,
        "seconds": tally.seconds,
        "tokens_per_second": tally.tokens / tally.seconds,
        "trainable_parameters": count.trainable,
        "total_parameters": count.total,
        **_last_figures(lines),
        **batches.metrics,
        **_speed(trainer),
    }
    return TrainResult(
        metrics={name: float(value) for name, value in metrics.items() if value is not None},
        history=files.metrics,
        resumed_from=begun["resumed_from"],
        notes=notes,
    )


def _import_libraries() -> None:
    if "swiftcore.training.trainer" in sys.modules:
        return
    with uncollected():
        # Losses of object detection want scipy, accelerate's settings for SageMaker boto3.
        import_without("swiftcore.training.trainer", ("boto3", "scipy"))
        for name in ("models.loading", "training.objectives", "training.outputs", "tuners.prepare"):
            import_module(f"swiftcore.{name}")


def _require_room(job: TrainJob, longest: int) -> None:
    if job.check_memory:
        sharing = 1 if job.device.startswith("cuda") else job.processes.per_node
        needed = require_memory(job, longest, free_memory(job.device) // sharing)
        print(f"memory: about {gib(needed.total)}: {describe(needed)}", flush=True)


def _last_figures(lines: list[Line]) -> dict[str, float]:
    """Return what the last evaluation found beside the loss."""
    evaluations = [line for line in lines if "eval_loss" in line]
    last = evaluations[-1] if evaluations else {}
    return {
        name: value
        for name, value in last.items()
        if name.startswith("eval_") and name != "eval_loss"
    }


def _speed(trainer: Any) -> dict[str, float]:
    """Return what the meter saw; tokens a second of the whole run are the tally's."""
    figures = trainer.meter.of_run()
    figures.pop("tokens_per_second", None)
    return figures


def _run(trainer: Any, found: checkpoints.Checkpoint | None) -> None:
    if found is None:
        trainer.train()
        return
    if found.weights_alone:
        trainer.resume_weights(found)
        return
    trainer.resume_tally(found.path)
    if not trainer.is_finished(found.step):
        trainer.train(resume_from_checkpoint=str(found.path))
        return
    # Everything is trained; going through train() would take further steps.
    trainer.state.global_step = found.step
    trainer._load_from_checkpoint(str(found.path))


def _prepared_model(job: TrainJob, steps: int, rows: EncodedRows) -> tuple[Any, Any]:
    from transformers import set_seed

    from swiftcore.models import load_model, load_tokenizer
    from swiftcore.training.scored import pad_id_of, tuner_with_head
    from swiftcore.tuners import prepare_model

    if job.adapter_dir is not None:
        refuse_other_base(job.model_dir, job.adapter_dir)
    tokenizer = load_tokenizer(job.model_dir)
    full = job.tuner.train_type == "full"
    # Small updates vanish in 16-bit weights; full training keeps float32 masters under autocast.
    dtype = "float32" if full and job.torch_dtype is not None else job.torch_dtype
    if job.task.has_head:
        set_seed(job.train.seed)  # the head may start with random weights
    model = load_model(
        job.model_dir,
        dtype=dtype,
        device=job.device,
        attn_impl=job.attn_impl,
        quantization=job.quantization,
        task=job.task,
    )
    set_seed(job.train.seed)
    if job.task.has_head and model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = pad_id_of(tokenizer)
    tuner = tuner_with_head(job.tuner, model) if job.task.has_head else job.tuner
    prepared = prepare_model(model, tuner, total_steps=steps, rows=rows, adapter=job.adapter_dir)
    return prepared, tokenizer


def _in_stored_type(model: Any, job: TrainJob) -> Any:
    import torch

    if job.tuner.train_type == "full" and job.torch_dtype is not None:
        return model.to(getattr(torch, job.torch_dtype))
    return model


def _folded(model: Any, job: TrainJob) -> list[str]:
    if job.tuner.train_type not in ("lora", "longlora") or not job.train.fold_lora:
        return []
    from swiftcore.tuners import fold_lora

    return [fold_lora(model).describe()]


def _side_by_side(model: Any, batches: Any) -> list[str]:
    if not batches.side_by_side:
        return []
    from swiftcore.training.row_attention import attend_by_row

    return [*batches.notes, attend_by_row(model, batches.longest)]


def _checkpoint(
    job: TrainJob, files: Workspace, steps: int, notes: list[str], limit: int | None
) -> checkpoints.Checkpoint | None:
    found, rejected = checkpoints.newest_verified(files.checkpoints, job.identity(), limit)
    notes += rejected
    if found and found.step < steps and job.train.save_only_model:
        notes.append(
            f"{found.path.name} holds weights alone (train.save_only_model): starting over"
        )
        found = None
    step = found.step if found else 0
    checkpoints.remove_after(files.checkpoints, step)
    MetricsLog(files.metrics).keep_until(step)
    for note in notes:
        print(note, flush=True)
    return found or named_checkpoint(job)


def _hide_unused_packages(job: TrainJob) -> None:
    """Keep transformers and peft from importing packages this run has no use for.

    They import whatever is installed: 2 to 3 of the 8 CPU seconds of a start went into these.
    """
    unused = ["datasets", "torchao"]
    quantized_moments = job.train.kind().bitsandbytes or job.tuner.galore_quantization
    quantized = job.quantization is not None or is_quantized(job.model_dir)
    if not quantized and not quantized_moments:
        unused.append("bitsandbytes")
    for name in unused:
        # None makes `import name` fail and `find_spec(name)` answer None, as if not installed.
        sys.modules[name] = None  # pyright: ignore[reportArgumentType]


def _stop_if_asked(stop: StopRequest | AgreedStop, step: int | None) -> None:
    if stop.requested:
        raise Cancelled(
            "training was stopped"
            + (f" after step {step}; its checkpoint is kept" if step else " before its first step"),
            do="start the same run again; it goes on from there" if step else None,
        )


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of torch and of its allocators may take seconds to end and have nothing left to do.
    os._exit(code)
