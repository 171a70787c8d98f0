"""Say, without running anything, which steps are reused, which run, why, and what it will cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from swiftcore.artifacts import Artifact, Identity, Record, Store
from swiftcore.recipe import Runtime
from swiftcore.stages.graph import Link, Road, Step
from swiftcore.stages.needs import TrainNeeds, train_needs

_MAX_VALUE_LETTERS = 60


@dataclass(frozen=True)
class PlannedStep:
    """What would happen to one step.

    Args:
        label: recipe/stage.
        action: reuse, or run.
        reason: why, in words.
        fingerprint: None while an input has yet to be made.
        seconds: as long as it took last time; None when it never ran here.
        size_bytes: as large as it was last time.
        needs: memory and time of a training that would run, where its model is there.
    """

    label: str
    action: Literal["reuse", "run"]
    reason: str
    fingerprint: str | None
    seconds: float | None
    size_bytes: int | None
    needs: TrainNeeds | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the step as JSON-ready values."""
        return asdict(self)


def plan(road: Road, store: Store, runtime: Runtime | None = None) -> list[PlannedStep]:
    """Return what `run` would do to each step of a road, on this machine."""
    made: dict[str, Artifact] = {}
    records = [artifact.record for artifact in store.artifacts()]
    # `artifacts` yields the oldest first, so the newest stays.
    latest = {(record.stage, record.name): record for record in records}
    planned = []

    def needs(step: Step) -> TrainNeeds | None:
        is_training = step.stage.name == "train"
        return train_needs(step, made, runtime or Runtime(), records) if is_training else None

    for step in road.steps:
        past = latest.get((step.stage.name, step.recipe.name))
        call = step.call(made)
        if call is None:
            awaited = _planned(step, "run", _awaited(step, made), None, past)
            planned.append(replace(awaited, needs=needs(step)))
            continue
        identity = call.identity(store)
        found = store.lookup(identity.stage, identity.fingerprint)
        if found.artifact:
            made[step.label] = found.artifact
            planned.append(
                _planned(step, "reuse", "unchanged", identity.fingerprint, found.artifact.record)
            )
        else:
            reason = found.problem or why_new(identity, past)
            again = _planned(step, "run", reason, identity.fingerprint, past)
            planned.append(replace(again, needs=needs(step)))
    return planned


def why_new(identity: Identity, past: Record | None) -> str:
    """Say how an identity differs from the last record of the same stage and recipe."""
    if past is None:
        return "never made here"
    reasons = []
    if past.version != identity.version:
        reasons.append(f"stage version {past.version} -> {identity.version}")
    before, after = _flatten(past.config), _flatten(identity.config)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            old, new = before.get(key, "default"), after.get(key, "default")
            reasons.append(f"{key} {_short(old)} -> {_short(new)}")
    for role in sorted(past.inputs.keys() | identity.inputs.keys()):
        old_ref, new_ref = past.inputs.get(role), identity.inputs.get(role)
        if old_ref is None or new_ref is None:
            reasons.append(f"input {role} {'added' if old_ref is None else 'gone'}")
        elif old_ref.digest != new_ref.digest:
            reasons.append(f"input {role} changed ({new_ref.label})")
    return "; ".join(reasons) or "its artifact is no longer in the store"


def _planned(
    step: Step,
    action: Literal["reuse", "run"],
    reason: str,
    fingerprint: str | None,
    past: Record | None,
) -> PlannedStep:
    seconds = past.seconds if past else None
    size = past.size_bytes if past else None
    return PlannedStep(step.label, action, reason, fingerprint, seconds, size)


def _awaited(step: Step, made: Mapping[str, Artifact]) -> str:
    names = {
        value.step.label
        for value in step.inputs.values()
        if isinstance(value, Link) and value.step.label not in made
    }
    return f"after {', '.join(sorted(names))}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_VALUE_LETTERS else text[: _MAX_VALUE_LETTERS - 3] + "..."


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
