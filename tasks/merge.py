"""The merge task."""

from tasks.handles import Handle
from tasks.journey import Journey
from tasks.running import run_step, stage_task


@stage_task
def merge(
    journey: Journey, model: Handle | None, adapter: Handle, encoded: Handle | None
) -> Handle:
    """Fold the adapter into its base, and prove by logits that nothing else changed."""
    return run_step(journey, "merge", model, adapter, encoded)
