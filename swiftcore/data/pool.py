"""The same function over many tasks: here, in processes of this machine, or on a Ray cluster.

Results come in the order of the tasks, so that nothing depends on who was faster. Few tasks are
handed out at once: memory stays flat however many there are.
"""

import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from swiftcore.errors import EnvironmentMissing, SwiftError, TransientError
from swiftcore.processes import die_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")

_TASKS_A_WORKER = 2


@dataclass(frozen=True)
class Pool:
    """Where tasks run.

    Args:
        processes: worker processes; 1 works in the calling process.
        ray_address: address of a Ray cluster, `local` for one started here; None uses processes.
            Source files and the folder of the results must be on a file system all nodes share.
    """

    processes: int = 1
    ray_address: str | None = None

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order.

        Raises:
            SwiftError: whatever the function raises; tasks not yet begun are dropped.
            TransientError: a worker process was killed.
            EnvironmentMissing: Ray is asked for and not installed.
        """
        if self.ray_address is not None:
            return _on_ray(function, tasks, self.ray_address)
        workers = min(self.processes, len(tasks))
        if workers <= 1:
            return map(function, tasks)
        return _in_processes(function, tasks, workers)


def _in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    # Spawned, not forked: the caller may have threads, whose locks a fork would copy as held.
    executor = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(os.getpid(),),
    )
    waiting: deque[Future[Result]] = deque()
    try:
        rest = iter(tasks)
        for task in rest:
            waiting.append(executor.submit(function, task))
            if len(waiting) >= workers * _TASKS_A_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as err:
        raise TransientError(
            "a worker process was killed",
            found="most often the machine had no memory left",
            do="run again with fewer processes: --set runtime.dataset_num_proc=1",
        ) from err
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent_pid: int) -> None:
    die_with_parent(parent_pid)
    # Each worker is one of as many as there are cores; a tokenizer would start threads for all.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Ctrl-C reaches the whole group; the parent alone decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], address: str
) -> Iterator[Result]:
    try:
        import ray
    except ImportError as err:
        raise EnvironmentMissing(
            "Ray is not installed",
            where="runtime.ray_address",
            found=address,
            expected="the package ray",
            do="pip install 'swiftcore[cluster]', or remove runtime.ray_address",
        ) from err
    started = not ray.is_initialized()
    if started:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield from _ray_results(ray, function, tasks)
    finally:
        if started:
            ray.shutdown()


def _ray_results(
    ray: Any, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[Result]:
    remote = ray.remote(function)
    at_once = max(int(ray.cluster_resources().get("CPU", 1)) * _TASKS_A_WORKER, 1)
    waiting: deque[Any] = deque()
    for task in tasks:
        waiting.append(remote.remote(task))
        if len(waiting) >= at_once:
            yield _fetch(ray, waiting.popleft())
    while waiting:
        yield _fetch(ray, waiting.popleft())


def _fetch(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as err:
        if isinstance(err.cause, SwiftError):
            raise err.cause from None
        raise
    except ray.exceptions.RayError as err:
        raise TransientError(
            "a Ray worker failed",
            found=str(err).splitlines()[0],
            do="look at the cluster, and run again",
        ) from err
