"""What training needs for models that score texts: their head, their padding, their pooling."""

from typing import Any

from swiftcore.errors import UsageError
from swiftcore.models.tasks import head_modules, resolve_pooling
from swiftcore.recipe.sections import TunerSection
from swiftcore.training.forward import unwrapped
from swiftcore.training.job import TrainJob
from swiftcore.tuners.kinds import KINDS


def pad_id_of(tokenizer: Any) -> int:
    """Return the token that fills short rows; no model looks at it."""
    pad_id = tokenizer.pad_token_id
    return pad_id if isinstance(pad_id, int) else 0


def tuner_with_head(tuner: TunerSection, model: Any) -> TunerSection:
    """Return the tuner with the model's head among what is trained and saved whole.

    Raises:
        UsageError: the tuner trains nothing beside itself.
    """
    if tuner.train_type == "full":
        return tuner
    if "modules_to_save" not in KINDS[tuner.train_type].settings:
        raise UsageError(
            "this tuner can't train a head, which starts with random weights",
            where="tuner.train_type",
            found=tuner.train_type,
            expected="full, or a tuner that reads modules_to_save",
            do="choose lora or full",
        )
    heads = [name for name in head_modules(model) if name not in tuner.modules_to_save]
    return tuner.model_copy(update={"modules_to_save": [*tuner.modules_to_save, *heads]})


def resolved_job(job: TrainJob, model: Any) -> TrainJob:
    """Return the job with everything its task leaves to the model decided."""
    if job.task.task_type != "embedding":
        return job
    plain = unwrapped(model)
    pooling = resolve_pooling(plain, job.model_dir, job.task)
    return job.model_copy(update={"task": job.task.model_copy(update={"pooling": pooling})})
