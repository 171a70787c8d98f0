"""What a model is trained to do: the task types, their losses and figures, and what fits them.

Data alone, so that a recipe can be checked without importing torch. The rules raise ValueError, as
validators of sections do.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from swiftcore.recipe.sections import Recipe, TrainSection

TaskType = Literal["causal_lm", "seq_cls", "embedding", "reranker", "generative_reranker"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]
Pooling = Literal["last", "mean", "cls"]

# The first is the default.
LOSSES: dict[str, tuple[str, ...]] = {
    "causal_lm": ("cross_entropy",),
    "seq_cls": ("cross_entropy", "mse", "bce"),
    "embedding": ("infonce", "cosine_similarity", "contrastive", "online_contrastive"),
    "reranker": ("pointwise_reranker", "listwise_reranker"),
    "generative_reranker": ("pointwise_reranker", "listwise_reranker"),
}
PROBLEM_LOSSES: dict[ProblemType, str] = {
    "single_label_classification": "cross_entropy",
    "regression": "mse",
    "multi_label_classification": "bce",
}
# Losses that compare the rows of a batch with each other: a smaller batch is another loss.
BATCH_LOSSES = ("infonce", "online_contrastive")

_RETRIEVAL = ("margin", "mean_pos", "mean_neg", "mrr", "ndcg", "recall")
_CORRELATION = ("pearson", "spearman")
_RANKING = ("mrr", "ndcg", "margin")
METRICS: dict[str, tuple[str, ...]] = {
    "single_label_classification": ("acc", "f1"),
    "multi_label_classification": ("acc", "f1"),
    "regression": ("mse", *_CORRELATION),
    "embedding": (*_RETRIEVAL, *_CORRELATION),
    "reranker": _RANKING,
    "generative_reranker": _RANKING,
}
# ms-swift's names for several figures at once.
METRIC_GROUPS = {"infonce": _RETRIEVAL, "paired": _CORRELATION, "reranker": _RANKING}


class Task(BaseModel):
    """What a model is trained to do.

    Args:
        task_type: the kind of task.
        num_labels: outputs of a classifier's head; 1 for a reranker.
        problem_type: what the outputs mean; None where there is no classifier.
        pooling: how an embedding comes from hidden states; None: the model folder says, or else
            the last token of a model that sees the past alone, and the mean of any other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_type: TaskType = "causal_lm"
    num_labels: int | None = None
    problem_type: ProblemType | None = None
    pooling: Pooling | None = None

    @property
    def is_text(self) -> bool:
        """Whether the model goes on writing text, which is what everything else here expects."""
        return self.task_type == "causal_lm"

    @property
    def is_ranking(self) -> bool:
        """Whether documents are ordered by how well they answer a query."""
        return self.task_type in ("reranker", "generative_reranker")

    @property
    def has_head(self) -> bool:
        """Whether scores come from a head of the model's own, in the place of a vocabulary."""
        return self.task_type in ("seq_cls", "reranker")

    @property
    def kind(self) -> str:
        """Key of `METRICS`: the problem of a classifier, the task type of all others."""
        return self.problem_type or self.task_type


TEXT = Task()


def task_of(
    task_type: TaskType,
    num_labels: int | None,
    problem_type: ProblemType | None,
    pooling: Pooling | None,
) -> Task:
    """Return the task that the fields of a model section mean.

    Raises:
        ValueError: a field is missing, or would do nothing.
    """
    if task_type != "seq_cls":
        for name, value in (("num_labels", num_labels), ("problem_type", problem_type)):
            if value is not None:
                raise ValueError(f"model.{name} does nothing with task_type {task_type}")
    if pooling is not None and task_type != "embedding":
        raise ValueError(f"model.pooling does nothing with task_type {task_type}")
    if task_type == "reranker":
        return Task(task_type=task_type, num_labels=1)
    if task_type != "seq_cls":
        return Task(task_type=task_type, pooling=pooling)
    if num_labels is None:
        raise ValueError("task_type seq_cls needs model.num_labels: classes, or 1 for regression")
    inferred = "regression" if num_labels == 1 else "single_label_classification"
    problem = problem_type or inferred
    if problem == "single_label_classification" and num_labels == 1:
        raise ValueError("a classifier of one class has nothing to decide; raise model.num_labels")
    return Task(task_type=task_type, num_labels=num_labels, problem_type=problem)


def loss_of(task: Task, train: "TrainSection") -> str:
    """Return the name of the loss of a run."""
    by_problem = PROBLEM_LOSSES.get(task.problem_type) if task.problem_type else None
    return train.loss_type or by_problem or LOSSES[task.task_type][0]


def compares_processes(task: Task, train: "TrainSection") -> bool:
    """Tell whether rows are compared with those that other processes have at the same time."""
    return loss_of(task, train) == "infonce" and train.infonce_use_batch


def metrics_of(task: Task, train: "TrainSection") -> tuple[str, ...]:
    """Return the names of the figures an evaluation reports."""
    known = METRICS.get(task.kind, ())
    if train.metric is None:
        return known
    chosen = METRIC_GROUPS.get(train.metric, (train.metric,))
    return tuple(name for name in chosen if name in known)


def check_task(recipe: "Recipe") -> None:
    """Check that the sections of a recipe fit its task.

    Raises:
        ValueError: a setting does nothing with this task, or a stage can't work on its model.
    """
    task, train = recipe.model.task, recipe.train
    _check_names(task, train)
    loss = loss_of(task, train)
    for name in _set_fields(train, "infonce_"):
        if loss != "infonce":
            raise ValueError(f"train.{name} does nothing with loss_type {loss}")
    margin = _set_fields(train, "infonce_fake_neg_margin")
    if margin and not train.infonce_mask_fake_negative:
        raise ValueError(f"train.{margin[0]} does nothing without infonce_mask_fake_negative")
    for name in _set_fields(train, "listwise_reranker_"):
        if loss != "listwise_reranker":
            raise ValueError(f"train.{name} does nothing with loss_type {loss}")
    for name in _set_fields(train, "generative_reranker_"):
        if task.task_type != "generative_reranker":
            raise ValueError(f"train.{name} does nothing with task_type {task.task_type}")
    if not task.is_text:
        _check_sections(recipe, task)


def _check_names(task: Task, train: "TrainSection") -> None:
    if task.is_text and train.external_plugins:
        if train.metric is not None and not train.predict_with_generate:
            raise ValueError("train.metric scores answers: set train.predict_with_generate")
        return
    known = LOSSES[task.task_type]
    if train.loss_type is not None and train.loss_type not in known:
        raise ValueError(
            f"train.loss_type {train.loss_type!r} is no loss of task_type {task.task_type}; "
            f"choose one of {', '.join(known)}"
        )
    if task.problem_type and train.loss_type not in (None, PROBLEM_LOSSES[task.problem_type]):
        raise ValueError(
            f"train.loss_type {train.loss_type!r} does not go with problem_type "
            f"{task.problem_type}, whose loss is {PROBLEM_LOSSES[task.problem_type]}"
        )
    if train.metric is not None and not metrics_of(task, train):
        names = METRICS.get(task.kind, ())
        raise ValueError(
            f"train.metric {train.metric!r} is no figure of {task.kind}; "
            + (f"choose one of {', '.join(names)}" if names else "it has none but the loss")
        )


def _check_sections(recipe: "Recipe", task: Task) -> None:
    train = recipe.train
    idle = {
        "train.method: pt": train.method == "pt",
        "train.packing": train.packing,
        "train.enable_dft_loss": train.enable_dft_loss,
        "train.predict_with_generate": train.predict_with_generate,
        "train.enable_channel_loss": train.enable_channel_loss,
        "train.acc_strategy": train.acc_strategy is not None,
        "train.router_aux_loss_coef": train.router_aux_loss_coef > 0,
        "train.padding_free": train.padding_free,
        "train.label_logits: false": not train.label_logits,
        "train.loss_normalization: weights": train.loss_normalization == "weights",
        "template.loss_scale": recipe.template.loss_scale != "default",
        "tuner.init_weights lora-ga": recipe.tuner.init_weights == "lora-ga",
        "tuner.init_weights eva": recipe.tuner.init_weights == "eva",
    }
    for name, is_set in idle.items():
        if is_set:
            raise ValueError(f"{name} is for next-token prediction, not for {task.task_type}")
    for name in ("quantize", "evaluate", "deploy"):
        if getattr(recipe, name) is not None:
            raise ValueError(
                f"the {name} stage answers rows with text, and a model of task_type "
                f"{task.task_type} writes none; remove the section (the train stage evaluates the "
                "validation rows)"
            )


def _set_fields(train: "TrainSection", prefix: str) -> list[str]:
    return [name for name in train.model_dump(exclude_defaults=True) if name.startswith(prefix)]
