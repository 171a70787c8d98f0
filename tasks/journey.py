"""One flow run on its way: the recipe's road, where it works, and what happened to each step."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from swiftcore.artifacts import Artifact, Store
from swiftcore.recipe import LoadedRecipe, Recipe, Runtime
from swiftcore.stages import Link, Road, StageCall, Step
from tasks.handles import Handle, open_artifact
from tasks.tracking import FlowTracker


@dataclass(frozen=True)
class StepNote:
    """How one step ended, for the run card and the final table."""

    step: str
    reused: bool
    reason: str
    seconds: float


@dataclass
class Trip:
    """What the journeys of one flow run share.

    Args:
        loaded: the recipe as it was read.
        road: all its steps, those of base recipes first.
        store: where artifacts live.
        runtime: where to work.
        tracker: tells MLflow.
        notes: how steps ended that ran in this flow run, by step label.
        handles: what each step was found or made as, by step label.
        facts: what register and deploy reported, for the card.
    """

    loaded: LoadedRecipe
    road: Road
    store: Store
    runtime: Runtime
    tracker: FlowTracker
    notes: dict[str, StepNote] = field(default_factory=dict)
    handles: dict[str, Handle] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)


class Journey:
    """A trip as one of its recipes sees it: the main recipe, or a base recipe below it."""

    # Slots keep Prefect's parameter encoder from walking through everything a trip holds.
    __slots__ = ("_recipe", "trip")

    def __init__(self, trip: Trip, recipe: Recipe | None = None) -> None:
        self.trip = trip
        self._recipe = recipe or trip.road.recipe

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """Return the recipe's name."""
        return self._recipe.name

    @property
    def recipe(self) -> Recipe:
        """Return the recipe."""
        return self._recipe

    def has(self, stage: str) -> bool:
        """Tell whether the recipe runs a stage."""
        return any(step.label == f"{self.name}/{stage}" for step in self.trip.road.steps)

    def step(self, stage: str) -> Step:
        """Return the recipe's step of a stage; asking for one it does not run is our bug."""
        return next(s for s in self.trip.road.steps if s.label == f"{self.name}/{stage}")

    def base(self) -> "Journey | None":
        """Return the journey of the recipe that makes this recipe's base model, if one does."""
        model = self.step("train").inputs["model"]
        if not isinstance(model, Link) or model.step.recipe.name == self.name:
            return None
        return Journey(self.trip, model.step.recipe)

    def call(self, stage: str, inputs: Iterable[Handle | None]) -> StageCall:
        """Return the step with its inputs opened and verified.

        Args:
            stage: which step.
            inputs: results of earlier tasks; those that the step does not use are ignored.

        Raises:
            ArtifactDamaged: an input is no longer what it was.
        """
        step = self.step(stage)
        wanted = {value.step.label for value in step.inputs.values() if isinstance(value, Link)}
        given = {handle.step: handle for handle in inputs if handle is not None}
        call = step.call(self._open(given, wanted))
        assert call is not None, f"{step.label} needs {sorted(wanted - given.keys())}"
        return call

    def arrived(self, handle: Handle, note: StepNote | None = None) -> None:
        """Remember what a step was found or made as, and how, when it ran here."""
        self.trip.handles[handle.step] = handle
        if note is not None:
            self.trip.notes[handle.step] = note

    def _open(self, given: dict[str, Handle], wanted: set[str]) -> dict[str, Artifact]:
        return {
            label: open_artifact(handle, self.trip.store)
            for label, handle in given.items()
            if label in wanted
        }
