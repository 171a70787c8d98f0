"""The quantize task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def quantize(journey: Journey, model: Handle, encoded: Handle | None) -> Handle:
    """Store the weights in fewer bits, with the loss of accuracy measured and limited."""
    return run_step(journey, "quantize", model, encoded)
