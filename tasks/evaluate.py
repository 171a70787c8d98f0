"""The evaluate task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def evaluate(
    journey: Journey,
    dataset: Handle | None,
    encoded: Handle | None,
    base: Handle | None,
    trained: Handle,
    merged: Handle | None,
    quantized: Handle | None,
) -> Handle:
    """Let every candidate answer the held-out rows, and score the answers."""
    return run_step(journey, "evaluate", dataset, encoded, base, trained, merged, quantized)
