"""What a run learns: one module for each kind of task, behind one protocol.

`objective_for` chooses by the job's task type. `causal` is next-token prediction.
"""

from swiftcore.training.objectives.choice import objective_for
from swiftcore.training.objectives.objective import Batch, Objective, Outputs, Score

__all__ = ["Batch", "Objective", "Outputs", "Score", "objective_for"]
