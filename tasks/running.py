"""Running one step inside a Prefect task: progress, tracking, cancellation, and the handle."""

import functools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import Abort, TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.tasks import Task

from swiftcore.artifacts import Artifact
from swiftcore.artifacts.lease import Owner
from swiftcore.errors import Cancelled, LeaseHeld, SwiftError, TransientError
from swiftcore.progress import Progress, TerminalProgress
from swiftcore.stages import Step, run_stage
from tasks.caching import BY_FINGERPRINT
from tasks.handles import Handle
from tasks.journey import Journey, StepNote
from tasks.lineage_tags import stage_tags
from tasks.system_figures import SystemFigures
from tasks.tracking import FlowTracker

_REPORT_EVERY_SECONDS = 2.0
_ASK_EVERY_SECONDS = 5.0
_DATASET_STAGES = ("ingest", "template")
_F = TypeVar("_F", bound=Callable[..., Handle])


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Tell whether the same call may work in a moment; a lease has been waited for long enough."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientError) and not isinstance(error, LeaseHeld)


def stage_task(function: _F) -> _F:
    """Make a Prefect task of a stage: cached by fingerprint, retried only when that can help.

    Tasks carry no tags: for each tagged task Prefect asks the API for a concurrency slot, and on
    SQLite that waits for the event writer (measured: 2 s a task). The flow run carries them.
    """
    decorate = functools.partial(
        task,
        name=function.__name__,
        task_run_name=f"{function.__name__} {{journey}}",
        cache_policy=BY_FINGERPRINT,
        persist_result=True,
        result_serializer="json",
        cache_result_in_memory=False,
        retries=2,
        retry_delay_seconds=[2, 15],
        retry_jitter_factor=0.5,
        retry_condition_fn=is_transient,
    )
    return decorate(function)  # type: ignore[return-value]  # a Task is called like its function


def run_step(journey: Journey, stage: str, *inputs: Handle | None) -> Handle:
    """Make or reuse a step's artifact, telling Prefect and MLflow how it goes.

    Raises:
        SwiftError: what the stage raised.
        TerminationSignal, Abort: somebody asked the stage to stop.
    """
    trip, step = journey.trip, journey.step(stage)
    call = journey.call(stage, inputs)
    trip.tracker.start_stage(step.label, stage_tags(call, trip.store))
    read = [a for a in call.inputs.values() if isinstance(a, Artifact)]
    trip.tracker.datasets(step.label, (a for a in read if a.record.stage in _DATASET_STAGES))
    progress = _StepProgress(step, TerminalProgress(stage), trip.tracker)

    def on_wait(owner: Owner) -> None:
        get_run_logger().info("waiting: %s is making %s", owner.describe(), step.label)

    with _failures_told(journey, step):
        outcome = run_stage(
            call,
            trip.store,
            trip.runtime,
            progress=progress,
            on_metrics=lambda line: trip.tracker.metrics_line(step.label, line),
            on_wait=on_wait,
        )
    progress.finish()
    artifact = outcome.artifact
    tags = {"artifact.digest": artifact.digest, "artifact.reused": str(outcome.reused).lower()}
    trip.tracker.end_stage(step.label, artifact, tags)
    note = StepNote(step.label, outcome.reused, outcome.reason, outcome.seconds)
    handle = Handle.of(step.label, artifact)
    journey.arrived(handle, note)
    return handle


@contextmanager
def _failures_told(journey: Journey, step: Step) -> Iterator[None]:
    tracker = journey.trip.tracker
    try:
        yield
    except Cancelled as err:
        tracker.fail_stage(step.label, err.message, "KILLED")
        # The training took the signal for itself; Prefect waits for it to end the flow run.
        raise TerminationSignal(signal=signal.SIGTERM) from err
    except SwiftError as err:
        tracker.fail_stage(step.label, str(err), "FAILED")
        raise
    except BaseException as err:
        status = "FAILED" if isinstance(err, Exception) else "KILLED"
        tracker.fail_stage(step.label, f"{type(err).__name__}: {err}", status)
        raise


class _StepProgress:
    """Shows progress in Prefect and the terminal, samples the machine, hears a cancellation."""

    def __init__(self, step: Step, terminal: Progress, tracker: FlowTracker) -> None:
        self._step = step
        self._tracker = tracker
        self._system = SystemFigures()
        self._terminal = terminal
        self._artifact: Any = None
        self._reported = 0.0
        self._asked = time.monotonic()

    def update(self, done: float, total: float | None, text: str) -> None:
        """Pass the news on, at a rate that Prefect's database does not notice.

        Raises:
            Abort: the flow run was cancelled in Prefect's UI or API.
        """
        self._terminal.update(done, total, text)
        if figures := self._system.sample_if_due():
            self._tracker.system_figures(self._step.label, figures, self._system.num_samples)
        now = time.monotonic()
        if total and now - self._reported >= _REPORT_EVERY_SECONDS:
            self._reported = now
            self._show(100.0 * min(done / total, 1.0))
        if now - self._asked >= _ASK_EVERY_SECONDS:
            self._asked = now
            _raise_if_cancelled()

    def finish(self) -> None:
        """Leave a full bar behind where there was one."""
        if self._artifact is not None:
            self._show(100.0)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            self._artifact = create_progress_artifact(
                progress=percent,
                key=f"progress-{self._step.stage.name}",
                description=self._step.label,
            )
        else:
            update_progress_artifact(self._artifact, progress=percent)


def _raise_if_cancelled() -> None:
    """A run without a worker gets no signal when it is cancelled in the UI, so it has to ask."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run.get_id())).state
    if state is not None and (state.is_cancelled() or state.is_cancelling()):
        stop = Abort("The flow run was cancelled in Prefect.")
        stop.state = state  # type: ignore[attr-defined]  # the flow engine looks for it
        raise stop
