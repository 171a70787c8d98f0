"""What commands that answer in one process take of a runtime, and what they refuse."""

from collections.abc import Iterable

from swiftcore.errors import UsageError
from swiftcore.recipe import Runtime

# Where an answer is made. All else of a runtime belongs to training and to endpoints.
_RUNNING = (
    "store",
    "device",
    "num_threads",
    "backends_dir",
    "install_backends",
    "start_timeout_seconds",
    "log_level",
)


def idle_settings(given: Iterable[str]) -> list[str]:
    """Return the settings of a runtime that do nothing where one process answers."""
    return [name for name in given if name not in _RUNNING]


def refuse_processes(runtime: Runtime, do: str) -> None:
    """Refuse the environment of a training with several processes.

    Args:
        runtime: reads it.
        do: how the command uses several GPUs instead.

    Raises:
        UsageError: it asks for more than one process.
    """
    processes = runtime.processes()
    if processes.world_size > 1:
        raise UsageError(
            "One process answers.",
            where="NPROC_PER_NODE, NNODES",
            found=f"{processes.nodes} machines with {processes.per_node} processes each",
            expected="one process",
            do=f"unset the variables; on several GPUs {do}",
        )
