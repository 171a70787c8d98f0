"""The template task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def template(journey: Journey, dataset: Handle | None, model: Handle | None) -> Handle:
    """Turn rows into tokens and labels, as the model will be served."""
    return run_step(journey, "template", dataset, model)
