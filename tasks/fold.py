"""The fold task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def fold(journey: Journey, model: Handle | None) -> Handle:
    """Put frozen adapters into the weights of the base model."""
    return run_step(journey, "fold", model)
