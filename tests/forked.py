"""Training processes forked from one that has torch loaded: half a second each instead of seven."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from swiftcore.training import TrainJob
from swiftcore.training.distributed.team import with_meeting_point
from swiftcore.training.stopping import StopRequest
from swiftcore.training.worker import train
from swiftcore.training.workspace import Workspace

_HERE = str(Path(__file__).parent)


@cache
def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    # The server of Python 3.11 does not take over sys.path.
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path, _HERE])
    context.set_forkserver_preload(["forked_preload"])
    return context


class AskedAfter(StopRequest):
    """A request to stop that comes some questions later."""

    def __init__(self, questions: int) -> None:
        self._left = questions

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left < 0

    @requested.setter
    def requested(self, value: bool) -> None: ...


def train_together(job: TrainJob, stop_rank: int | None = None, stop_after: int = 0) -> list[Any]:
    """Run a job's processes and return what each returned or raised; one may be asked to stop."""
    job = job.model_copy(update={"processes": with_meeting_point(job.processes)})
    Workspace(job.work_dir).forget_attempt()
    stops = [
        AskedAfter(stop_after) if number == stop_rank else StopRequest()
        for number in range(job.processes.per_node)
    ]
    return together(_run, [(job, stop) for stop in stops])


def together(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Call `function(number, *arguments[number])` in a process for each number."""
    context = _server()
    pipes, processes = [], []
    for number, given in enumerate(arguments):
        ours, theirs = context.Pipe()
        process = context.Process(target=_call, args=(function, number, given, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    results = []
    for pipe, process in zip(pipes, processes, strict=True):
        try:
            assert pipe.poll(120), "a training process hangs"
            results.append(pipe.recv())
        except EOFError:
            results.append(RuntimeError("the process ended without a word"))
        finally:
            process.join(1)
            process.kill()
    return results


def _call(function: Callable[..., Any], number: int, given: tuple[Any, ...], pipe: Any) -> None:
    try:
        result = function(number, *given)
    except Exception as err:
        result = err
    pipe.send(result)
    pipe.close()
    os._exit(0)


def _run(number: int, job: TrainJob, stop: StopRequest) -> Any:
    return train(job, Workspace(job.work_dir), stop, number)
