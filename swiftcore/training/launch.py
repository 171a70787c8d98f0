"""Starting the training process and watching it until it ends."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swiftcore.errors import Cancelled, SwiftError
from swiftcore.models import require_model_folder
from swiftcore.models.files import read_json
from swiftcore.progress import Progress, Silent
from swiftcore.training.distributed.team import (
    Team,
    crowding,
    reported_failure,
    require_packages,
    start_team,
    with_meeting_point,
)
from swiftcore.training.failures import OUT_OF_MEMORY, exit_error
from swiftcore.training.job import TrainJob, TrainResult
from swiftcore.training.metrics import Line, describe_line, read_lines
from swiftcore.training.workspace import Workspace

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 60.0


def run_training(
    job: TrainJob,
    *,
    progress: Progress | None = None,
    on_metrics: Callable[[dict[str, Any]], None] | None = None,
    grace_seconds: float = _GRACE_SECONDS,
) -> TrainResult:
    """Train in a process of its own and return what came of it.

    A run that was interrupted goes on from its newest verified checkpoint in `job.work_dir`. The
    first SIGTERM or Ctrl-C lets the process write a checkpoint and end; a second one, or
    `grace_seconds` without an end, kills it. It never outlives this process. When memory runs out
    it is started once more with half the rows a forward and twice the accumulation steps.

    Args:
        job: what to train.
        progress: told steps, total and loss.
        on_metrics: called with each metric line of the run in order, those before a resume too.
        grace_seconds: longest wait for an end after a first request to stop.

    Raises:
        UsageError: a setting has no meaning for this model.
        EnvironmentMissing: a package, a GPU or a port that the job needs is not there.
        ModelMissing: there is no model in `job.model_dir`.
        DataError: no token carries loss.
        TrainingFailed: the loss was not finite, or the process crashed.
        StoreFull: no room for a checkpoint or the model.
        Cancelled: somebody asked for the end.
    """
    require_model_folder(job.model_dir)
    require_packages(job)
    watch = _Watch(Workspace(job.work_dir), progress or Silent(), on_metrics)
    notes = crowding(job)
    try:
        result = _attempt(job, watch, grace_seconds)
    except SwiftError as err:
        smaller = job.with_smaller_batches()
        if err.message != OUT_OF_MEMORY or smaller is None:
            raise
        rows, accumulation = smaller.batch_plan()
        notes.append(
            f"memory ran out; tried again with {rows} rows a forward and {accumulation} "
            "accumulation steps, which is the same batch"
        )
        result = _attempt(smaller, watch, grace_seconds)
    return result.model_copy(update={"notes": notes + result.notes})


class _Watch:
    """Reads what the process writes and passes it on, each metric line once."""

    def __init__(
        self,
        files: Workspace,
        progress: Progress,
        on_metrics: Callable[[Line], None] | None,
    ) -> None:
        self.files = files
        self._progress = progress
        self._on_metrics = on_metrics
        self._seen: set[tuple[int, bool]] = set()
        self._total: int | None = None
        self._size = -1

    def restart(self) -> None:
        """Prepare for a new process."""
        self._total = None
        self._size = -1
        self._progress.update(0, None, "starting")

    def look(self) -> None:
        """Pass on what is new since the last look."""
        if self._total is None:
            if not self.files.started.is_file():
                return
            started = read_json(self.files.started)
            self._total = started["total_steps"]
            step = started["resumed_from"]
            text = f"resumed from step {step}" if step else "first step"
            self._progress.update(step or 0, self._total, text)
        size = self.files.metrics.stat().st_size if self.files.metrics.is_file() else -1
        if size != self._size:
            self._size = size
            for line in read_lines(self.files.metrics):
                self._pass_on(line)

    def _pass_on(self, line: Line) -> None:
        key = (line["step"], "eval_loss" in line)
        if key in self._seen:
            return
        self._seen.add(key)
        if self._on_metrics:
            self._on_metrics(line)
        text = f"step {line['step']}/{self._total}  {describe_line(line)}"
        self._progress.update(line["step"], self._total, text)


def _attempt(job: TrainJob, watch: _Watch, grace_seconds: float) -> TrainResult:
    files = watch.files
    files.forget_attempt()
    job = job.model_copy(update={"processes": with_meeting_point(job.processes)})
    files.job.write_text(job.model_dump_json(indent=2), encoding="utf-8")
    watch.restart()
    kills_before = _num_oom_kills()
    with _stop_signals() as stops, files.log.open("ab") as log:
        team = start_team(job, files, log)
        try:
            _wait(team, watch, stops, grace_seconds)
        except BaseException:
            _end(team, grace_seconds)
            raise
    watch.look()
    return _outcome(team, job, files, bool(stops), _num_oom_kills() > kills_before)


def _wait(team: Team, watch: _Watch, stops: list[int], grace_seconds: float) -> None:
    passed_on, deadline = 0, float("inf")
    while team.running():
        watch.look()
        if len(stops) > passed_on:
            passed_on = len(stops)
            deadline = min(deadline, time.monotonic() + grace_seconds)
            team.terminate() if passed_on == 1 else team.kill()
        if time.monotonic() > deadline:
            team.kill()
        time.sleep(_POLL_SECONDS)


def _end(team: Team, grace_seconds: float) -> None:
    team.terminate()
    if not team.wait(grace_seconds):
        team.kill()
        team.wait(grace_seconds)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them; only a main thread can do that."""
    stops: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    before = {
        number: signal.signal(number, lambda received, _: stops.append(received))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(
    team: Team, job: TrainJob, files: Workspace, stopped: bool, oom_killed: bool
) -> TrainResult:
    number, returncode = team.outcome
    if returncode == 0 and files.result.is_file():
        return TrainResult.model_validate_json(files.result.read_text(encoding="utf-8"))
    failure, echo = reported_failure(files, job.processes.per_node)
    # A killed process leaves no report, and those left behind only the echo of its end.
    if failure is not None and (not echo or (returncode > 0 and not stopped)):
        raise failure
    if stopped:
        raise Cancelled(
            "training was stopped before it could write a checkpoint",
            where=files.folder,
            do="start the same run again; it goes on from the last checkpoint",
        )
    raise exit_error(returncode, files.log_of(number), files.log_tail(number=number), oom_killed)


def _num_oom_kills() -> int:
    """Return how often the kernel has killed for memory so far; 0 where it does not tell."""
    total = 0
    for file in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        if not file.is_file():
            continue
        for line in file.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            total += int(value) if name == "oom_kill" else 0
    return total
