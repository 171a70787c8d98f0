"""Refusing a training that the memory can't hold, before anything is loaded."""

import contextlib
from pathlib import Path

import psutil

from swiftcore.errors import EnvironmentMissing
from swiftcore.models.shape import ModelShape, model_shape
from swiftcore.training.estimate import MemoryEstimate, estimate_memory, gib
from swiftcore.training.job import TrainJob

# Activations of an unknown architecture may be this much less than estimated.
_ACTIVATION_DOUBT = 1.5
_CGROUP = Path("/sys/fs/cgroup")


def require_memory(job: TrainJob, longest: int, free: int) -> MemoryEstimate:
    """Return the estimate of a job that may fit.

    A job is refused when it can't fit even if activations come out lower than estimated, and with
    half the rows a forward, which a run out of memory falls back to by itself.

    Args:
        job: what would be trained.
        longest: tokens of the longest row, or of a packed sequence.
        free: bytes there are.

    Raises:
        EnvironmentMissing: it would not fit; the message says what would.
    """
    shape = model_shape(job.model_dir)
    needed = estimate_memory(job, longest, shape)
    if _least(job.with_smaller_batches() or job, longest, shape) <= free:
        return needed
    raise EnvironmentMissing(
        "this training does not fit into memory",
        where=job.device,
        found=f"{gib(free)} free",
        expected=f"about {gib(needed.total)}: {describe(needed)}",
        do=_advice(job, longest, shape, free),
    )


def describe(estimate: MemoryEstimate) -> str:
    """Return the parts of an estimate in one line."""
    saving = f", a checkpoint being written {gib(estimate.saving)}" if estimate.saving else ""
    return (
        f"weights {gib(estimate.weights)}, gradients {gib(estimate.gradients)}, optimizer "
        f"{gib(estimate.optimizer)}, activations {gib(estimate.activations)} for "
        f"{estimate.tokens_a_forward:,} tokens a forward, logits {gib(estimate.logits)}{saving}"
    )


def free_memory(device: str) -> int:
    """Return the bytes that this process may still take on a device."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        free = min(free, limit - int((_CGROUP / "memory.current").read_text(encoding="ascii")))
    return free


def _least(job: TrainJob, longest: int, shape: ModelShape) -> float:
    estimate = estimate_memory(job, longest, shape)
    return estimate.fixed + estimate.activations / _ACTIVATION_DOUBT


def _advice(job: TrainJob, longest: int, shape: ModelShape, free: int) -> str:
    """Return the changes that would make room, each with what is needed then."""
    offers: list[str] = []
    for text, other in _alternatives(job):
        needed = estimate_memory(other, longest, shape).total
        if needed <= free:
            offers.append(f"{text} (about {gib(needed)})")
    if not offers:
        offers = ["use a smaller model, shorter rows (template.max_length), or more memory"]
    return "; or ".join(offers) + "; runtime.check_memory: false tries it all the same"


def _alternatives(job: TrainJob) -> list[tuple[str, TrainJob]]:
    """Return jobs that need less, each change on top of the one before."""
    found: list[tuple[str, TrainJob]] = []
    train, tuner, text = job.train, job.tuner, ""
    if train.per_device_train_batch_size > 1:
        train = train.model_copy(update={"per_device_train_batch_size": 1})
        text = "set train.per_device_train_batch_size to 1 and raise gradient_accumulation_steps"
        found.append((text, job.model_copy(update={"train": train})))
    if not train.gradient_checkpointing:
        train = train.model_copy(update={"gradient_checkpointing": True})
        text = (
            f"{text}, and train.gradient_checkpointing"
            if text
            else ("set train.gradient_checkpointing")
        )
        found.append((text, job.model_copy(update={"train": train})))
    if tuner.train_type == "full":
        tuner = type(tuner)()
        text = f"{text}, and tuner.train_type to lora" if text else "set tuner.train_type to lora"
        found.append((text, job.model_copy(update={"train": train, "tuner": tuner})))
    if job.torch_dtype in (None, "float32"):
        text = (
            f"{text}, and model.torch_dtype to bfloat16"
            if text
            else ("set model.torch_dtype to bfloat16")
        )
        update = {"train": train, "tuner": tuner, "torch_dtype": "bfloat16"}
        found.append((text, job.model_copy(update=update)))
    return found
