"""Which objective a job has."""

from swiftcore.training.job import TrainJob
from swiftcore.training.objectives.causal import CausalObjective
from swiftcore.training.objectives.objective import Objective


def objective_for(job: TrainJob, *, pad_id: int, side_by_side: bool = False) -> Objective:
    """Return the objective of a job.

    Args:
        job: whose task type decides.
        pad_id: token that fills short rows.
        side_by_side: rows of a batch form one sequence, instead of one padded line each.
    """
    return CausalObjective(job.train, pad_id=pad_id, side_by_side=side_by_side)
