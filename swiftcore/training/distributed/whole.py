"""What needs whole weights, and whether weights that were spread are whole again."""

import torch
from torch import nn

from swiftcore.errors import TrainingFailed, UsageError
from swiftcore.recipe.optimization import needs_whole_weights
from swiftcore.training.job import TrainJob


def require_whole(model: nn.Module, shapes: dict[str, torch.Size]) -> None:
    """Make sure that a model has the weights it had before they were spread.

    Raises:
        TrainingFailed: some are missing or have another shape.
    """
    now = {name: weight.shape for name, weight in model.named_parameters()}
    wrong = sorted(name for name in {*now, *shapes} if now.get(name) != shapes.get(name))
    if wrong:
        raise TrainingFailed(
            "the trained weights could not be put together again",
            where=wrong[0],
            found=f"{len(wrong)} of {len(shapes)} weights differ; here {now.get(wrong[0])}",
            expected=str(shapes.get(wrong[0])),
            do="the checkpoints are kept; report it",
        )


def require_shardable(job: TrainJob) -> None:
    """Refuse what works on whole matrices, or chooses weights anew while it trains.

    Raises:
        UsageError: the job has such a tuner or optimizer.
    """
    found = needs_whole_weights(job.train, job.tuner)
    if found:
        raise UsageError(
            f"{found} works on whole weights, and each process has but a part of them",
            where="train.fsdp, train.deepspeed",
            found=found,
            expected="what changes each number by itself, such as AdamW on LoRA or on all",
            do="leave train.fsdp and train.deepspeed out, so that DDP trains",
        )
