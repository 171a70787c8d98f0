"""How many processes share a training run, on how many machines, and where they meet.

Nothing here shapes a result but the number of processes, and that only where the recipe leaves open
how many of them a step's rows are counted for: see `train.data_parallel_size`.
"""

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from swiftcore.errors import UsageError

# ms-swift's default, 208 days: a process that waits for a slow neighbour is no failure.
DEFAULT_TIMEOUT_SECONDS = 18_000_000
# torchrun's default, for machines that have to agree on one without having spoken.
DEFAULT_PORT = 29500
Backend = Literal["gloo", "nccl"]


class Processes(BaseModel):
    """The processes of one run.

    Ranks count from 0 over all machines: the processes of machine 0, then those of machine 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_node: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    node_rank: int = Field(default=0, ge=0)
    master_addr: str = "127.0.0.1"
    master_port: int | None = Field(default=None, ge=1, le=65535)
    timeout_seconds: int = Field(default=DEFAULT_TIMEOUT_SECONDS, ge=1)
    backend: Backend | None = None
    find_unused_parameters: bool | None = None

    @property
    def world_size(self) -> int:
        """Processes on all machines."""
        return self.per_node * self.nodes

    def readers(self, sharers: int) -> int:
        """Return how many of them read rows of their own when so many share each sequence.

        Raises:
            UsageError: they can't be divided into groups of that size.
        """
        if self.world_size % sharers:
            raise UsageError(
                "the processes can't be divided into groups that share the tokens of a sequence",
                where="train.sequence_parallel_size",
                found=f"groups of {sharers}, and {self.world_size} processes in all",
                expected="a number of processes that train.sequence_parallel_size divides",
                do=f"set NPROC_PER_NODE={sharers}, or a multiple; or lower "
                "train.sequence_parallel_size",
            )
        return self.world_size // sharers

    def rank(self, local_rank: int) -> int:
        """Return the rank over all machines of a process of this one."""
        return self.node_rank * self.per_node + local_rank

    def chosen_backend(self, device: str) -> Backend:
        """Return the communication library, which the device decides unless it is given."""
        return self.backend or ("nccl" if device == "cuda" else "gloo")


def number_of(value: int | None, variable: str, default: int, at_least: int) -> int:
    """Return a field's value, else that of an environment variable, else the default.

    Raises:
        UsageError: the variable holds something else than a number in range.
    """
    if value is not None:
        return value
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < at_least:
        raise UsageError(
            f"{variable} has a value that makes no sense",
            where=f"environment variable {variable}",
            found=text,
            expected=f"a whole number from {at_least} on",
            do="correct it, or unset it",
        )
    return int(text)


def meeting_point(addr: str | None, port: int | None, nodes: int) -> tuple[str, int | None]:
    """Return address and port of the first process; no port is any free one.

    Raises:
        UsageError: several machines and no address.
    """
    addr = addr or os.environ.get("MASTER_ADDR", "").strip() or None
    named = number_of(port, "MASTER_PORT", 0, 1) or None
    if nodes == 1:
        return addr or "127.0.0.1", named
    if addr is None:
        raise UsageError(
            "several machines need to know the first one's address",
            where="runtime.master_addr",
            found=f"{nodes} machines and no MASTER_ADDR",
            expected="a name or an address that all of them reach",
            do="set MASTER_ADDR, and MASTER_PORT if 29500 is taken, on each machine",
        )
    return addr, named or DEFAULT_PORT
