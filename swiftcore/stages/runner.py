"""Run steps in order, in this process: what the CLI and DVC do, and what a Prefect task does."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from swiftcore.artifacts import Artifact, Identity, Outcome, Produced, Store, WorkArea, make
from swiftcore.artifacts.lease import Owner
from swiftcore.artifacts.space import require_room
from swiftcore.errors import DataError, RecipeError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import Runtime
from swiftcore.stages.contract import StageCall, StageRun, TokenizerOf, input_path
from swiftcore.stages.graph import Road, Step


class Listener(Protocol):
    """Hears what happens to each step."""

    def started(self, step: Step) -> Progress:
        """Return the progress of a step that is about to run."""
        ...

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
    """Make or reuse the artifact of one stage call. All three doors come through here.

    Raises:
        ArtifactDamaged: an input artifact was altered since it was looked up.
        StoreFull: there is no room for what the stage writes.
        DataError: an input file was edited while the stage read it; nothing was published.
    """
    identity = call.identity(store)
    paths = {role: input_path(value) for role, value in call.inputs.items()}

    def body(area: WorkArea) -> Produced:
        _verify_inputs(call, store)
        require_room(store.root, call.stage.needs_bytes(paths))
        listener = progress or Silent()
        run = StageRun(call.recipe, paths, area, runtime, listener, on_metrics, call.inputs)
        produced = call.stage.run(run)
        _refuse_moving_inputs(call, identity, store)
        return produced

    return make(
        store,
        identity,
        body,
        measured=call.stage.measured,
        wait_seconds=runtime.lease_wait_seconds,
        on_wait=on_wait,
    )


def _verify_inputs(call: StageCall, store: Store) -> None:
    """Check artifacts again where they are used: hours may have passed since their lookup."""
    for value in call.inputs.values():
        artifact = value.model if isinstance(value, TokenizerOf) else value
        if isinstance(artifact, Artifact):
            store.verify(artifact)


def _refuse_moving_inputs(call: StageCall, identity: Identity, store: Store) -> None:
    now = call.identity(store)
    changed = [
        role for role, ref in now.inputs.items() if ref.digest != identity.inputs[role].digest
    ]
    if changed:
        raise DataError(
            "An input changed while the step was reading it, so its result has no known origin.",
            where=", ".join(changed),
            found=", ".join(str(input_path(call.inputs[role])) for role in changed),
            expected="inputs that stay as they are until the step has ended",
            do="start the command again once the file is complete; nothing was published",
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
            do="change deploy.serve, or the sections that make the model (tuner, merge, quantize)",
        )
    return wanted
