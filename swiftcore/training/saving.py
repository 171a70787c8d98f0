"""Checkpoints, written at once, or by a thread while training goes on.

With `runtime.async_save` the state of a step is copied to main memory, and the next step begins;
a thread writes the copy with the code that would have written the original, and the record of
completeness last. One write runs at a time. What it raises is raised in the training.
"""

import copy
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from swiftcore.training import checkpoints
from swiftcore.training.distributed.trainer import SharedTrainer
from swiftcore.training.job import TrainJob
from swiftcore.training.workspace import Workspace


class BackgroundTask:
    """Does one piece of work at a time in a thread; as a context it ends with the work done."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before it is done.

        Raises:
            BaseException: what that one raised.
        """
        self.wait()
        self._thread = threading.Thread(target=self._do, args=(work,), name="checkpoint")
        self._thread.start()

    def settle(self) -> None:
        """Wait until nothing is under way, and leave what was raised for later."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait until nothing is under way.

        Raises:
            BaseException: what the work raised.
        """
        self.settle()
        self.check()

    def check(self) -> None:
        """Raise what finished work raised, without waiting for unfinished."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as err:  # raised again where the training can be ended
            self._error = err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: Any) -> None:
        # What ended the training is told, not what followed from it.
        self.settle() if kind is not None else self.wait()


class CheckpointWriter(SharedTrainer):
    """Brings checkpoints to the disk, seals them and removes the oldest.

    Args:
        job: whose checkpoints they are.
        others: what `SharedTrainer` takes.
    """

    def __init__(self, *args: Any, job: TrainJob, **others: Any) -> None:
        self._owner = job
        self._folder = Workspace(job.work_dir).checkpoints
        self._parts: list[Callable[[], None]] = []
        self.writing = BackgroundTask()
        super().__init__(*args, **others)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and return when the last checkpoint is written."""
        with self.writing:
            return super().train(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.writing.wait()
        self._parts = []
        super()._save_checkpoint(model, trial)

    def complete(self, path: Path, best_step: int | None) -> None:
        """Write what is left of a checkpoint, seal it, and remove those beyond the limit.

        Args:
            path: its folder.
            best_step: step of the best checkpoint so far, which is kept.
        """
        work = partial(self._finish, path, self._parts, best_step)
        self.writing.start(work) if self._owner.async_save else work()

    def _finish(self, path: Path, parts: list[Callable[[], None]], best_step: int | None) -> None:
        with removed_on_failure(path):
            for write in parts:
                write()
            checkpoints.seal(path, self._owner.identity())
        checkpoints.rotate(self._folder, self._owner.train.save_total_limit, best_step)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        weights = state_dict or self._weights
        if output_dir is None or not self._owner.async_save:
            super()._save(output_dir, state_dict=weights)
            return
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        kept = self._copied_weights() if weights is None else host_copy(weights)
        self._parts.append(partial(super()._save, output_dir, state_dict=kept))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._owner.async_save:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer: Any = self.optimizer
        scheduler: Any = self.lr_scheduler
        states = {
            OPTIMIZER_NAME: self._optimizer_state or optimizer.state_dict(),
            SCHEDULER_NAME: scheduler.state_dict(),
        }
        for name, state in states.items():
            kept = host_copy(state)
            self._parts.append(partial(torch.save, kept, Path(output_dir) / name))

    def _copied_weights(self) -> dict[str, Any]:
        """Return the model's state: what no optimizer steps stays as it is, and is not copied."""
        model: Any = self.model
        optimizer: Any = self.optimizer
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        fixed = {name for name, p in model.named_parameters() if id(p) not in stepped}
        state = model.state_dict()
        changing = {name: value for name, value in state.items() if name not in fixed}
        return {**state, **host_copy(changing)}


@contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """Remove a folder that could not be finished.

    A full disk gets its room back, and a half checkpoint is of no use to anyone.
    """
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def host_copy(value: Any) -> Any:
    """Return a copy in main memory of tensors in dictionaries and lists.

    Tensors that share all of their memory share that of the copy, as tied weights do.
    """
    return _copied(value, {})


def _copied(value: Any, made: dict[Any, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() == 0 or key not in made:
            made[key] = value.detach().to("cpu", copy=True)
        return made[key]
    if isinstance(value, dict):
        return {name: _copied(inner, made) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner, made) for inner in value)
    return copy.deepcopy(value)
