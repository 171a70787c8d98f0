"""The extend task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def extend(journey: Journey, model: Handle | None) -> Handle:
    """Add tokens to the base model, or stretch its positions."""
    return run_step(journey, "extend", model)
