"""Which checkpoints there are, which one counts and when a training ends: fields and their rules.

A combination in which one setting would do nothing is refused.
"""

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, model_validator

if TYPE_CHECKING:
    from swiftcore.recipe.sections import TrainSection


class TrainCheckpointing(BaseModel):
    """Fields of the train section about checkpoints, the best one, and the end of a training."""

    gradient_checkpointing_kwargs: dict[str, Any] | None = Field(
        default=None, description="settings of torch's checkpointing; default: use_reentrant false"
    )
    full_determinism: bool = Field(
        default=False, description="refuse kernels that are not deterministic; slower"
    )
    max_epochs: int | None = Field(
        default=None,
        ge=1,
        description="end after this many passes, evaluated and saved, on a schedule made for more",
    )
    metric_for_best_model: str | None = Field(
        default=None,
        description="metric that names the best checkpoint; default: loss, or rouge-l",
    )
    greater_is_better: bool | None = Field(
        default=None, description="more of that metric is better; default: unless it is a loss"
    )
    load_best_model_at_end: bool = Field(
        default=False, description="hand on the best checkpoint instead of the last step"
    )
    early_stop_interval: int | None = Field(
        default=None, ge=1, description="end after this many checkpoints without a better metric"
    )
    save_only_model: bool = Field(
        default=False, description="checkpoints without optimizer and random state; no resuming"
    )
    resume_from_checkpoint: str | None = Field(
        default=None, description="folder of a checkpoint of the same recipe, to go on from"
    )
    resume_only_model: bool = Field(
        default=False, description="take the weights of that checkpoint and its place in the rows"
    )
    ignore_data_skip: bool = Field(
        default=False, description="with resume_only_model: begin at the first step and row"
    )

    @model_validator(mode="after")
    def _evaluations_and_checkpoints_make_sense(self) -> Self:
        train: Any = self
        problems = [*_recomputing(train), *_best_model(train), *_resuming(train)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def eval_strategy(train: "TrainSection") -> str:
    """Return when validation rows are evaluated, if there are any."""
    return train.eval_strategy or train.save_strategy


def best_metric(train: "TrainSection") -> str:
    """Return the validation metric that tells which checkpoint is best, without `eval_`."""
    default = "rouge-l" if train.predict_with_generate else "loss"
    return (train.metric_for_best_model or default).removeprefix("eval_")


def more_is_better(train: "TrainSection") -> bool:
    """Tell whether that metric should rise."""
    if train.greater_is_better is not None:
        return train.greater_is_better
    return "loss" not in best_metric(train)


def needs_validation(train: "TrainSection") -> str | None:
    """Return the name of a setting that does nothing without validation rows, if one is set."""
    asked = (
        "metric_for_best_model",
        "load_best_model_at_end",
        "early_stop_interval",
        "predict_with_generate",
    )
    return next((name for name in asked if getattr(train, name)), None)


def _recomputing(train: "TrainSection") -> list[str]:
    if train.gradient_checkpointing_kwargs is not None and not train.gradient_checkpointing:
        return ["train.gradient_checkpointing_kwargs does nothing without gradient_checkpointing"]
    return []


def _best_model(train: "TrainSection") -> list[str]:
    problems = []
    evaluates, saves = eval_strategy(train), train.save_strategy
    asked = needs_validation(train)
    if asked and evaluates == "no":
        problems.append(f"train.{asked} needs evaluations, and train.eval_strategy is no")
    if train.greater_is_better is not None and train.metric_for_best_model is None:
        problems.append("train.greater_is_better does nothing without train.metric_for_best_model")
    picks = next(
        (
            name
            for name in ("load_best_model_at_end", "early_stop_interval")
            if getattr(train, name)
        ),
        None,
    )
    if picks and evaluates != "no" and not _evaluates_what_it_saves(train, evaluates):
        problems.append(
            f"train.{picks} compares checkpoints, so each needs an evaluation: set eval_strategy "
            f"and eval_steps as save_strategy ({saves}) and save_steps ({train.save_steps})"
        )
    return problems


def _evaluates_what_it_saves(train: "TrainSection", evaluates: str) -> bool:
    if evaluates != train.save_strategy:
        return False
    return evaluates == "epoch" or train.eval_steps in (None, train.save_steps)


def _resuming(train: "TrainSection") -> list[str]:
    problems = []
    if train.resume_only_model and train.resume_from_checkpoint is None:
        problems.append("train.resume_only_model does nothing without train.resume_from_checkpoint")
    if train.ignore_data_skip and not train.resume_only_model:
        problems.append("train.ignore_data_skip does nothing without train.resume_only_model")
    return problems
