"""All processes of a run, as one of them sees them."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from swiftcore.errors import EnvironmentMissing
from swiftcore.training.checkpoints import Checkpoint
from swiftcore.training.job import TrainJob
from swiftcore.training.stopping import StopRequest

# What torchrun and MPI set. accelerate takes any of them for an order to start its own group.
_LAUNCHER_VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "PMI_SIZE", "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK",
)  # fmt: skip


# What torch says when it waits for a process that is gone.
_ECHOES = ("connection closed by peer", "connection reset", "socket", "gloo", "nccl", "tcpstore")


class PeerFailed(RuntimeError):
    """Another process failed, and says why itself."""


def is_echo(err: BaseException) -> bool:
    """Tell whether an exception is only about another process's failure."""
    if isinstance(err, PeerFailed):
        return True
    text = str(err).lower()
    return isinstance(err, RuntimeError) and any(words in text for words in _ECHOES)


class World:
    """The processes of a run: how many there are, which one this is, and sums over them.

    Args:
        size: processes on all machines.
        rank: number of this one, from 0.
        local_rank: its number on its machine.
        device: where tensors have to be to go to the others.
        sharers: processes of a team, which read the same rows and share their tokens.
    """

    def __init__(
        self,
        size: int = 1,
        rank: int = 0,
        local_rank: int = 0,
        device: str = "cpu",
        sharers: int = 1,
    ) -> None:
        self.size = size
        self.rank = rank
        self.local_rank = local_rank
        self.sharers = sharers
        self._device = device

    @property
    def teams(self) -> int:
        """Return how many teams there are, each with rows of its own."""
        return self.size // self.sharers

    @property
    def team(self) -> int:
        """Return the number of this process's team, from 0."""
        return self.rank // self.sharers

    @property
    def leads(self) -> bool:
        """Tell whether this process writes files for its machine."""
        return self.local_rank == 0

    @classmethod
    def join(cls, job: TrainJob, local_rank: int) -> "World":
        """Meet the other processes of a job and return once all are there.

        Raises:
            EnvironmentMissing: they could not meet.
        """
        processes = job.processes
        spread = job.train.fsdp is not None or job.train.deepspeed is not None
        if processes.world_size == 1 and not spread:
            return cls()
        import torch
        from torch import distributed

        for name in _LAUNCHER_VARIABLES:
            os.environ.pop(name, None)
        rank = processes.rank(local_rank)
        backend = processes.chosen_backend(job.device)
        timeout = timedelta(seconds=processes.timeout_seconds)
        try:
            store = distributed.TCPStore(  # pyright: ignore[reportPrivateImportUsage]: documented there
                processes.master_addr,
                processes.master_port or 0,
                processes.world_size,
                is_master=rank == 0,
                timeout=timeout,
            )
            distributed.init_process_group(
                backend,
                store=store,
                rank=rank,
                world_size=processes.world_size,
                timeout=timeout,
                device_id=torch.device("cuda", 0) if backend == "nccl" else None,
            )
        except (RuntimeError, ValueError) as err:
            raise EnvironmentMissing(
                "the training processes could not meet",
                where=f"{processes.master_addr}:{processes.master_port}, {backend}",
                found=f"{type(err).__name__}: {err}".splitlines()[0],
                expected=f"{processes.world_size} processes that reach this address",
                do="check MASTER_ADDR, MASTER_PORT, NNODES and NODE_RANK on every machine, and "
                "runtime.ddp_backend",
            ) from err
        device = "cuda" if backend == "nccl" else "cpu"
        sharers = job.train.sequence_parallel_size
        return cls(processes.world_size, rank, local_rank, device, sharers)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the values added up over all processes, the same bits in each."""
        if self.size == 1:
            return [float(value) for value in values]
        import torch
        from torch import distributed

        total = torch.tensor([float(v) for v in values], dtype=torch.float64, device=self._device)
        distributed.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return the value of each process, in the order of their ranks, once all gave theirs."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def gather_teams(self, value: Any) -> list[Any]:
        """Return one value of each team, in their order, once all processes gave theirs."""
        return self.gather(value)[:: self.sharers]


def agreed_checkpoint(
    find: Callable[[int | None], Checkpoint | None], world: World
) -> Checkpoint | None:
    """Return the newest checkpoint that every machine has, where it is on this one.

    Args:
        find: returns the newest one here up to a step; called in one process of each machine.
        world: the processes.
    """
    limit = None
    while True:
        found = world.gather((world.leads, find(limit) if world.leads else None))
        steps = {place.step if place else 0 for leads, place in found if leads}
        if len(steps) == 1:
            return found[world.rank - world.local_rank][1]
        limit = min(steps)


class AgreedStop:
    """A request to stop that all processes hear of between the same two steps.

    A signal reaches them at different times; if one ended a step before the others, they would wait
    for it.

    Args:
        own: what this process was asked.
        world: the processes.
    """

    def __init__(self, own: StopRequest, world: World) -> None:
        self._own = own
        self._world = world
        self._agreed = False

    @property
    def requested(self) -> bool:
        """Tell whether all processes know that one of them was asked."""
        return self._agreed if self._world.size > 1 else self._own.requested

    def agree(self) -> None:
        """Ask all processes; each has to call this after each step."""
        if self._world.size > 1:
            self._agreed = self._world.sum([self._own.requested])[0] > 0
