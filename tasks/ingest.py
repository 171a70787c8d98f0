"""The ingest task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def ingest(journey: Journey) -> Handle:
    """Turn sources into standard rows; every row is kept, quarantined or counted."""
    return run_step(journey, "ingest")
