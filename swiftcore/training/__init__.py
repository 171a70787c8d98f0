"""Training in a process of its own: the job, its launch, its checkpoints, its outcome.

`run_training(job)` is the door. It starts `swiftcore.training.worker`, which imports torch and
trains; this side only watches files, so a crash or a kill of the worker becomes a clear error here.
"""

from swiftcore.training.job import TrainJob, TrainResult
from swiftcore.training.launch import run_training

__all__ = ["TrainJob", "TrainResult", "run_training"]
