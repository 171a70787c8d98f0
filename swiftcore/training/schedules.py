"""Schedules of the learning rate: transformers' names, tried out before training starts."""

import math
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TrainSection

# They follow the validation loss, so they have no fixed course.
_BY_VALIDATION = ("reduce_lr_on_plateau", "greedy")
# transformers drops what these are given.
_WITHOUT_WARMUP = ("constant", *_BY_VALIDATION)
_WITHOUT_SETTINGS = ("constant", "constant_with_warmup")
_PROBED_STEPS = 64


def check_schedule(train: TrainSection, rate: float, steps: int, has_validation: bool) -> None:
    """Refuse a schedule that is not known, or that its settings don't fit.

    Args:
        train: the section.
        rate: peak learning rate.
        steps: optimizer steps of the run.
        has_validation: whether there are validation rows.

    Raises:
        UsageError: what is wrong with it.
    """
    name, settings = train.lr_scheduler_type, train.lr_scheduler_kwargs or {}
    _known(name)
    if settings and name in _WITHOUT_SETTINGS:
        raise _wrong(f"the schedule {name} has no settings", settings, "remove them")
    if train.warmup_ratio and name in _WITHOUT_WARMUP:
        raise UsageError(
            f"the schedule {name} does not warm up",
            where="train.warmup_ratio",
            found=train.warmup_ratio,
            do="remove it" + (", or take constant_with_warmup" if name == "constant" else ""),
        )
    if name in _BY_VALIDATION:
        _check_validated(name, settings, rate, has_validation)
    warmup = math.ceil(train.warmup_ratio * steps)
    course = _course(name, settings, rate, steps, warmup)
    odd = [value for value in course if not 0 <= value <= rate * (1 + 1e-6)]
    if odd:
        raise _wrong(
            "the learning rate would leave the range from 0 to its peak",
            f"{odd[0]:g} with {settings}",
            f"keep it at or below train.learning_rate, {rate:g}",
        )


def _course(
    name: str, settings: dict[str, Any], rate: float, steps: int, warmup: int
) -> list[float]:
    """Return the learning rate at some steps of the run."""
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    try:
        schedule: Any = get_scheduler(
            name,
            optimizer,
            num_warmup_steps=warmup,
            num_training_steps=steps,
            scheduler_specific_kwargs=dict(settings),
        )
        if name in _BY_VALIDATION:
            return [rate]
        probed = range(0, steps + 1, max(1, steps // _PROBED_STEPS))
        return [rate * float(schedule.lr_lambdas[0](step)) for step in probed]
    except (TypeError, ValueError, ArithmeticError) as err:
        raise _wrong(
            f"the schedule {name} can't be made",
            f"{settings or 'no settings'}: {err}",
            f"give {name} the settings that transformers documents",
        ) from err


def _check_validated(
    name: str, settings: dict[str, Any], rate: float, has_validation: bool
) -> None:
    if not has_validation:
        raise UsageError(
            f"the schedule {name} follows the validation loss",
            where="train.lr_scheduler_type",
            found="no validation rows",
            do="set data.val_dataset or data.split_dataset_ratio, or take another schedule",
        )
    # transformers' greedy keeps the rate above 1e-3 and lets it rise to 1 unless told otherwise.
    lowest, highest = (1e-3, 1.0) if name == "greedy" else (0.0, rate)
    lowest, highest = settings.get("min_lr", lowest), settings.get("max_lr", highest)
    if not isinstance(lowest, int | float) or not 0 <= lowest < rate <= highest:
        raise _wrong(
            f"the schedule {name} would leave its bounds at once",
            f"learning rate {rate:g}, min_lr {lowest}, max_lr {highest}",
            "set min_lr below and max_lr at or above train.learning_rate",
        )


def _known(name: str) -> None:
    from transformers import SchedulerType

    known = [kind.value for kind in SchedulerType]
    if name not in known:
        raise UsageError(
            "there is no such learning-rate schedule",
            where="train.lr_scheduler_type",
            found=name,
            expected=", ".join(known),
            do="choose one of them",
        )


def _wrong(message: str, found: object, do: str) -> UsageError:
    return UsageError(message, where="train.lr_scheduler_kwargs", found=found, do=do)
