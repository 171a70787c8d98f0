"""The scratch task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def scratch(journey: Journey, dataset: Handle | None) -> Handle:
    """Build a base model with random weights, and a tokenizer from the dataset's text."""
    return run_step(journey, "scratch", dataset)
