"""The train task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def train(journey: Journey, encoded: Handle | None, model: Handle | None) -> Handle:
    """Tune the model on the encoded rows, in a process of its own."""
    return run_step(journey, "train", encoded, model)
