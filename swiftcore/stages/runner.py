"""Run steps in order, in this process: what the CLI and DVC do, and what a Prefect task does."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from swiftcore.artifacts import Artifact, Outcome, Store, make
from swiftcore.artifacts.lease import Owner
from swiftcore.errors import RecipeError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import Runtime
from swiftcore.stages.contract import StageCall, StageRun, input_path
from swiftcore.stages.graph import Road, Step


class Listener(Protocol):
    """Hears what happens to each step."""

    def started(self, step: Step) -> Progress:
        """Return the progress of a step that is about to run."""

    def waiting(self, step: Step, owner: Owner) -> None:
        """Hear that another process is making the same artifact."""

    def metrics(self, step: Step, line: Mapping[str, Any]) -> None:
        """Hear a metrics line of a running step."""

    def finished(self, step: Step, outcome: Outcome) -> None:
        """Hear how a step ended."""


class Quiet:
    """A listener that says nothing."""

    def started(self, step: Step) -> Progress:
        """Give silent progress."""
        return Silent()

    def waiting(self, step: Step, owner: Owner) -> None:
        """Say nothing."""

    def metrics(self, step: Step, line: Mapping[str, Any]) -> None:
        """Say nothing."""

    def finished(self, step: Step, outcome: Outcome) -> None:
        """Say nothing."""


def run_stage(
    call: StageCall,
    store: Store,
    runtime: Runtime,
    *,
    progress: Progress | None = None,
    on_metrics: Callable[[dict[str, Any]], None] = lambda line: None,
    on_wait: Callable[[Owner], None] = lambda owner: None,
) -> Outcome:
    """Make or reuse the artifact of one stage call. All three doors come through here."""
    paths = {role: input_path(value) for role, value in call.inputs.items()}
    return make(
        store,
        call.identity(store),
        lambda area: call.stage.run(
            StageRun(call.recipe, paths, area, runtime, progress or Silent(), on_metrics=on_metrics)
        ),
        measured=call.stage.measured,
        wait_seconds=runtime.lease_wait_seconds,
        on_wait=on_wait,
    )


def run_steps(
    steps: Iterable[Step], store: Store, runtime: Runtime, listener: Listener | None = None
) -> dict[str, Artifact]:
    """Run steps in order and return their artifacts by step label."""
    listener = listener or Quiet()
    made: dict[str, Artifact] = {}
    for step in steps:
        call = step.call(made)
        assert call is not None, f"{step.label} runs before its inputs"
        progress = listener.started(step)

        def on_metrics(line: dict[str, Any], step: Step = step) -> None:
            listener.metrics(step, line)

        def on_wait(owner: Owner, step: Step = step) -> None:
            listener.waiting(step, owner)

        outcome = run_stage(
            call,
            store,
            runtime,
            progress=progress,
            on_metrics=on_metrics,
            on_wait=on_wait,
        )
        made[step.label] = outcome.artifact
        listener.finished(step, outcome)
    return made


def served_candidate(road: Road) -> str:
    """Return the name of the candidate that the recipe serves."""
    candidates = road.candidates()
    wanted = road.recipe.deploy.serve if road.recipe.deploy else "auto"
    if wanted == "auto":
        return next(name for name in ("merged", "trained", "adapter") if name in candidates)
    if wanted not in candidates:
        raise RecipeError(
            "The recipe does not make the model it wants to serve.",
            where="deploy.serve",
            found=wanted,
            expected=f"auto, or one of {', '.join(candidates)}",
            do=f"add the {wanted.removesuffix('d')} section, or change deploy.serve",
        )
    return wanted
