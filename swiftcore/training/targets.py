"""Whether rows can teach a task anything, asked before torch is imported."""

from collections.abc import Iterable

from swiftcore.errors import DataError, UsageError
from swiftcore.recipe.tasks import loss_of
from swiftcore.template import EncodedRows
from swiftcore.training.job import TrainJob
from swiftcore.training.rows import Row, require_labels


def require_trainable(rows: EncodedRows | None, split: str, job: TrainJob) -> EncodedRows:
    """Return the rows of a split that can teach the job's task something.

    Raises:
        DataError: there are none, or their targets are not what the loss compares with.
        UsageError: an anchor has nothing to be told apart from.
    """
    if job.task.is_text:
        return require_labels(rows, split, job.encoded_dir)
    if not rows:
        raise DataError(
            f"there are no rows to train on: the {split} split is empty",
            where=job.encoded_dir,
            do="look at drops.jsonl there for the reason each row was dropped",
        )
    check_targets(rows, split, job)
    return rows


def check_targets(rows: EncodedRows, split: str, job: TrainJob) -> None:
    """Check that the targets of a split's rows fit the job's loss.

    Raises:
        DataError: they are not what the loss compares with.
        UsageError: an anchor has nothing to be told apart from.
    """
    if any(row.get("targets") is None for row in rows[:1]):
        raise DataError(
            f"the rows were encoded for another task than {job.task.task_type}",
            where=job.encoded_dir,
            found="no targets",
            expected=f"rows of the template stage with model.task_type {job.task.task_type}",
            do="run the template stage of this recipe",
        )
    loss = loss_of(job.task, job.train)
    if loss in ("contrastive", "online_contrastive"):
        _require_both_values(rows, split, job, loss)
    elif loss == "listwise_reranker":
        least = job.train.listwise_reranker_min_group_size
        if not any(_has_list(row, least) for row in rows):
            raise _teaches_nothing(
                split, job, "no row", f"rows with {least} documents or more, one of which fits"
            )
    elif loss == "infonce":
        _require_negatives(rows, split, job)


def _require_both_values(rows: EncodedRows, split: str, job: TrainJob, loss: str) -> None:
    values = {target for row in rows for target in row["targets"]}
    if not values <= {0.0, 1.0}:
        odd = next(iter(sorted(values - {0.0, 1.0})))
        raise _teaches_nothing(split, job, f"a label of {odd}", f"labels 0 and 1 for {loss}")


def _require_negatives(rows: EncodedRows, split: str, job: TrainJob) -> None:
    train = job.train
    name = f"per_device_{'train' if split == 'train' else 'eval'}_batch_size"
    together = getattr(train, name) if train.infonce_use_batch else 1
    if together == 1 and not any(len(targets) > 1 for targets in _targets(rows)):
        raise UsageError(
            f"infonce has nothing to tell a positive of the {split} split apart from",
            where=f"train.{name}",
            found=f"{together} row at a time, and rows without negatives",
            expected="several rows in a batch, whose documents are each other's negatives",
            do=f"raise train.{name}, say to 16, or give rows negatives",
        )


def _targets(rows: EncodedRows) -> Iterable[list[float]]:
    return (row["targets"] for row in rows)


def _has_list(row: Row, least: int) -> bool:
    targets = row["targets"]
    return 1.0 in targets and 1 + targets.count(0.0) >= least


def _teaches_nothing(split: str, job: TrainJob, found: str, expected: str) -> DataError:
    return DataError(
        f"the rows of the {split} split are not what the loss compares with",
        where=job.encoded_dir,
        found=found,
        expected=expected,
        do="change train.loss_type, or the labels of the rows",
    )
