"""From a train section to transformers' TrainingArguments."""

import math
from typing import TYPE_CHECKING, Any

from swiftcore.errors import UsageError
from swiftcore.recipe.checkpointing import (
    best_metric,
    eval_strategy,
    more_is_better,
    needs_validation,
)
from swiftcore.recipe.optimization import plain
from swiftcore.recipe.optimizers import DEFAULT
from swiftcore.training.job import TrainJob
from swiftcore.training.schedules import check_schedule
from swiftcore.training.workspace import Workspace

if TYPE_CHECKING:
    from transformers import TrainingArguments


def total_steps(job: TrainJob, num_rows: int) -> int:
    """Return the number of optimizer steps of a run over `num_rows` rows, or packed sequences."""
    if job.train.max_steps > 0:
        return job.train.max_steps
    return math.ceil(job.train.num_train_epochs * steps_an_epoch(job, num_rows))


def last_step(job: TrainJob, num_rows: int) -> int:
    """Return the optimizer step after which a run ends; `max_epochs` may come before the total."""
    steps, epochs = total_steps(job, num_rows), job.train.max_epochs
    return steps if epochs is None else min(steps, epochs * steps_an_epoch(job, num_rows))


def steps_an_epoch(job: TrainJob, num_rows: int) -> int:
    """Return the number of optimizer steps of a pass over the rows."""
    micro, accumulation = job.batch_plan()
    rounds = math.ceil(num_rows / (micro * job.readers()))
    return math.ceil(rounds / accumulation)


def training_arguments(job: TrainJob, steps: int, has_validation: bool) -> "TrainingArguments":
    """Return the arguments of a run of `steps` optimizer steps.

    Raises:
        UsageError: the schedule can't be made, or the type of the weights does not fit the device.
    """
    from transformers import TrainingArguments

    train = job.train
    micro, accumulation = job.batch_plan()
    check_schedule(train, job.learning_rate(), steps, has_validation)
    evaluates = _eval_strategy(job, has_validation)
    try:
        return TrainingArguments(
            output_dir=str(Workspace(job.work_dir).checkpoints),
            num_train_epochs=train.num_train_epochs,
            max_steps=train.max_steps if train.max_steps > 0 else -1,
            per_device_train_batch_size=micro,
            per_device_eval_batch_size=job.eval_rows(),
            gradient_accumulation_steps=accumulation,
            learning_rate=job.learning_rate(),
            weight_decay=train.weight_decay,
            adam_beta1=train.adam_beta1,
            adam_beta2=train.adam_beta2,
            adam_epsilon=train.adam_epsilon,
            max_grad_norm=train.max_grad_norm,
            # Ours are made by training.optimizers.
            optim=DEFAULT if train.kind().schedule_free else train.kind().name,
            optim_args=plain(train.optim_args),
            lr_scheduler_type=train.lr_scheduler_type,
            lr_scheduler_kwargs=train.lr_scheduler_kwargs,
            # A share would be read as a number of steps from 1.0 on.
            warmup_steps=math.ceil(train.warmup_ratio * steps),
            activation_checkpointing=train.gradient_checkpointing,
            activation_checkpointing_kwargs=train.gradient_checkpointing_kwargs
            or {"use_reentrant": False},
            neftune_noise_alpha=train.neftune_noise_alpha or None,
            seed=train.seed,
            full_determinism=train.full_determinism,
            logging_strategy="steps",
            logging_steps=train.logging_steps,
            logging_first_step=train.logging_first_step,
            logging_nan_inf_filter=False,
            eval_strategy=evaluates,
            eval_steps=train.eval_steps or train.save_steps,
            save_strategy=train.save_strategy,
            save_steps=train.save_steps,
            # checkpoints.rotate does it, after the new one is sealed.
            save_total_limit=None,
            save_only_model=train.save_only_model,
            metric_for_best_model=best_metric(train) if has_validation else None,
            greater_is_better=more_is_better(train) if has_validation else None,
            dataloader_num_workers=job.num_workers,
            dataloader_pin_memory=job.pins_memory(),
            dataloader_persistent_workers=job.persistent_workers,
            dataloader_prefetch_factor=job.prefetch_factor,
            remove_unused_columns=False,
            label_names=["labels"],
            use_cpu=job.device == "cpu",
            report_to="none",
            disable_tqdm=True,
            **_precision(job),
        )
    except (ValueError, TypeError) as err:
        raise UsageError(
            "transformers refuses these training settings", where="train", found=err
        ) from err


def _eval_strategy(job: TrainJob, has_validation: bool) -> str:
    if has_validation:
        return eval_strategy(job.train)
    if asked := needs_validation(job.train):
        raise UsageError(
            "there are no validation rows",
            where=f"train.{asked}",
            found="an encoded dataset without a val split",
            do="set data.val_dataset or data.split_dataset_ratio",
        )
    return "no"


def _precision(job: TrainJob) -> dict[str, Any]:
    if job.torch_dtype == "float16" and job.device == "cpu":
        raise UsageError(
            "a CPU can't train in float16",
            where="model.torch_dtype",
            found="float16",
            expected="bfloat16 or float32",
            do="change model.torch_dtype",
        )
    return {"bf16": job.torch_dtype == "bfloat16", "fp16": job.torch_dtype == "float16"}
