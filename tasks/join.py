"""The join task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def join(journey: Journey) -> Handle:
    """Make one dataset of several that were encoded before."""
    return run_step(journey, "join")
