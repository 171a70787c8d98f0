"""What ended a training process, in words: an exception inside it, or the way it went away."""

import errno
import signal
from pathlib import Path

from swiftcore.errors import StoreFull, SwiftError, TrainingFailed

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
# torch's checkpoint writer notices a full disk only by a position that is not where it should be.
_DISK_WORDS = ("no space left on device", "disk quota exceeded", "unexpected pos")
OUT_OF_MEMORY = "training ran out of memory"


def as_swift_error(err: BaseException, where: Path) -> SwiftError:
    """Return the error to report for an exception that ended the training."""
    if isinstance(err, SwiftError):
        return err
    text = f"{type(err).__name__}: {err}"
    if isinstance(err, MemoryError) or _has(text, _MEMORY_WORDS):
        return out_of_memory(where, _first_line(text))
    if getattr(err, "errno", None) == errno.ENOSPC or _has(text, _DISK_WORDS):
        return disk_full(where, _first_line(text))
    return TrainingFailed(
        "the training process failed",
        where=where,
        found=_first_line(text),
        do="the log named above has the traceback; if it is no fault of the recipe, report it",
    )


def exit_error(returncode: int, log: Path, log_tail: str, oom_killed: bool) -> SwiftError:
    """Return the error for a process that ended without saying why.

    Args:
        returncode: of the process; negative is the number of the signal that ended it.
        log: the training log.
        log_tail: its last lines.
        oom_killed: whether the kernel killed processes for memory while it ran.
    """
    # A shell reports death by signal n as 128 + n.
    number = -returncode if returncode < 0 else returncode - 128
    if _has(log_tail, _DISK_WORDS):
        return disk_full(log, log_tail)
    if (number == signal.SIGKILL and oom_killed) or _has(log_tail, _MEMORY_WORDS):
        return out_of_memory(log, f"exit code {returncode}")
    if number > 0:
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return TrainingFailed(
            f"the training process was ended by {name}",
            where=log,
            found=log_tail or "an empty log",
            do=_hint(number),
        )
    return TrainingFailed(
        f"the training process ended with exit code {returncode} and no report",
        where=log,
        found=log_tail or "an empty log",
        do="read the log; start the same run again to go on from the last checkpoint",
    )


def out_of_memory(where: Path, found: str) -> TrainingFailed:
    """Return the error for a process that needed more memory than there is."""
    return TrainingFailed(
        OUT_OF_MEMORY,
        where=where,
        found=found,
        do="lower train.per_device_train_batch_size (and raise gradient_accumulation_steps), "
        "lower template.max_length, or set train.gradient_checkpointing",
    )


def disk_full(where: Path, found: str) -> StoreFull:
    """Return the error for a disk that filled up during training."""
    return StoreFull(
        "the disk is full",
        where=where,
        found=found,
        do="free some room (swift gc), raise train.save_steps or set train.save_total_limit, "
        "then start the same run again",
    )


def _hint(number: int) -> str:
    if number == signal.SIGKILL:
        return (
            "somebody killed it, or the machine ran out of memory (see dmesg); start the same run "
            "again to go on from the last checkpoint"
        )
    return "start the same run again to go on from the last checkpoint; report it if it repeats"


def _has(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text.lower() for word in words)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300]
