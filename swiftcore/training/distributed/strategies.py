"""How weights, gradients and optimizer states are spread over processes, behind one protocol."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from swiftcore.training.distributed.world import World
from swiftcore.training.job import TrainJob


class Strategy(Protocol):
    """One way to train in several processes, as the trainer asks for it.

    All processes call each method at the same point.
    """

    def shard(self, model: nn.Module) -> None:
        """Spread the weights in place, before there is an optimizer."""
        ...

    def wrap(self, model: Any, trainer: Any) -> Any:
        """Return what is called for a forward pass, once there is an optimizer."""
        ...

    def backward_pass(self, wrapped: Any, *, last: bool) -> AbstractContextManager[Any]:
        """Return the context of one forward and backward pass; `last` of the step or not."""
        ...

    def gradient_norm(self, norm: Any) -> float:
        """Return the norm over all weights from what the clipping returned."""
        ...

    def whole_weights(self, model: Any) -> dict[str, Tensor] | None:
        """Return all weights for a checkpoint; None where the model holds them itself."""
        ...

    def optimizer_state(self, trainer: Any) -> dict[str, Any] | None:
        """Return the optimizer's whole state for a checkpoint; None where it holds it itself."""
        ...

    def save_part(self, folder: Path) -> None:
        """Write what each process writes for itself into a checkpoint."""
        ...

    def load_optimizer_state(self, trainer: Any, file: Path) -> bool:
        """Take the optimizer's state from a checkpoint's file; False leaves it to transformers."""
        ...

    def unshard(self, model: Any) -> None:
        """Make the model a plain one again, in each process that writes files."""
        ...

    def describe(self) -> str:
        """Say in one line how the processes train together."""
        ...


class Alone:
    """One process that has everything; the parts of a strategy that most have in common."""

    def shard(self, model: nn.Module) -> None:
        """Leave the weights."""

    def wrap(self, model: Any, trainer: Any) -> Any:
        """Return the model."""
        return model

    def backward_pass(self, wrapped: Any, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return nullcontext()

    def gradient_norm(self, norm: Any) -> float:
        """Return the norm as it is."""
        return norm

    def whole_weights(self, model: Any) -> dict[str, Tensor] | None:
        """Leave them to the model."""
        return None

    def optimizer_state(self, trainer: Any) -> dict[str, Any] | None:
        """Leave it to the optimizer."""
        return None

    def save_part(self, folder: Path) -> None:
        """Write nothing."""

    def load_optimizer_state(self, trainer: Any, file: Path) -> bool:
        """Leave it to transformers."""
        return False

    def unshard(self, model: Any) -> None:
        """Leave the model."""

    def describe(self) -> str:
        """Say nothing."""
        return ""


class DataParallel(Alone):
    """torch's DistributedDataParallel: each process has all weights; gradients are averaged.

    Args:
        job: for the processes and the device.
    """

    def __init__(self, job: TrainJob) -> None:
        self._processes = job.processes
        # LISA's blocks at rest have no gradients, and which rest changes while training.
        self._some_rest = job.tuner.lisa_activated_layers > 0
        self._backend = self._processes.chosen_backend(job.device)

    def wrap(self, model: Any, trainer: Any) -> Any:
        """Return the model with its gradients averaged in the backward pass."""
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(
            trainer.accelerator.prepare_model(model),
            # Buffers of a language model are constants, and a broadcast a forward is not free.
            forward_sync_buffers=False,
            find_unused_parameters=self._some_rest or bool(self._processes.find_unused_parameters),
        )

    def backward_pass(self, wrapped: Any, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which gradients are averaged after the step's last pass alone."""
        return nullcontext() if last else wrapped.no_sync()

    def describe(self) -> str:
        """Name the processes and how they talk."""
        size = self._processes.world_size
        return f"{size} processes, DDP over {self._backend}: gradients averaged once a step"


def strategy_for(job: TrainJob, world: World) -> Strategy:
    """Return the strategy that a job asks for."""
    if job.train.fsdp is not None:
        from swiftcore.training.distributed.fsdp import FullyShard

        return FullyShard(job, world)
    if job.train.deepspeed is not None:
        from swiftcore.training.distributed.zero import ZeroRedundancy

        return ZeroRedundancy(job, world)
    return Alone() if world.size == 1 else DataParallel(job)
