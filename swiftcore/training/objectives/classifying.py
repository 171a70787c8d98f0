"""Sequence classification: a class, several classes, or numbers for each text."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swiftcore.recipe.sections import TrainSection
from swiftcore.recipe.tasks import Task, metrics_of
from swiftcore.training.forward import replace_forward
from swiftcore.training.objectives import figures, losses
from swiftcore.training.objectives.objective import Batch, Outputs
from swiftcore.training.objectives.samples import SampleCollator, SampleObjective


class ClassifyingObjective(SampleObjective):
    """The loss of the problem type, divided by the number of rows.

    Args:
        task: number and meaning of the outputs.
        train: which figures an evaluation reports.
        pad_id: token that fills short texts.
        separator: token between the first of two texts and the second.
    """

    def __init__(
        self, task: Task, train: TrainSection, *, pad_id: int, separator: int | None = None
    ) -> None:
        super().__init__(SampleCollator(pad_id), separator)
        self._task = task
        self._train = train

    def install(self, model: Any) -> list[str]:
        """Make a model's forward return loss and logits."""
        objective, problem_type = self, self._task.problem_type

        def forward(
            self: nn.Module,
            input_ids: Tensor,
            attention_mask: Tensor,
            targets: Tensor,
            sizes: Tensor,
            **_from_wrappers: Any,
        ) -> dict[str, Tensor]:
            given = objective.model_inputs(self, input_ids, attention_mask)
            logits_BC = type(self).forward(self, **given).logits.float()
            targets_BC = targets.view(len(sizes), -1)
            return {
                "loss": losses.classification(logits_BC, targets_BC, problem_type),
                "scores": logits_BC.detach(),
            }

        replace_forward(model, forward)
        return [f"{self._task.kind.replace('_', ' ')}, {self._task.num_labels} outputs"]

    def divisor(self, batch: Batch) -> float:
        """Return the number of rows."""
        return len(batch["sizes"])

    def num_targets(self, batch: Batch) -> int:
        """Return the number of rows."""
        return len(batch["sizes"])

    def score(self) -> "ClassScore":
        """Return an empty score."""
        return ClassScore(self._task, metrics_of(self._task, self._train))


class ClassScore:
    """acc and f1 of classes (all of several right; mean over classes), mse and correlations."""

    def __init__(self, task: Task, names: Sequence[str]) -> None:
        self._task = task
        self._names = names
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, batch: Batch, outputs: Outputs) -> None:
        """Keep the logits and targets of a batch."""
        self._logits.append(outputs["scores"].double().cpu())
        self._targets.append(batch["targets"].double().cpu().view(len(batch["sizes"]), -1))

    def metrics(self) -> dict[str, float]:
        """Return the figures over all rows; a correlation of what does not vary is left out."""
        logits_BC, targets_BC = torch.cat(self._logits), torch.cat(self._targets)
        found = self._figures(logits_BC, targets_BC)
        return {name: value for name in self._names if (value := found.get(name)) is not None}

    def _figures(self, logits_BC: Tensor, targets_BC: Tensor) -> dict[str, float | None]:
        if self._task.problem_type == "regression":
            given, expected = logits_BC.flatten(), targets_BC.flatten()
            return {
                "mse": float((given - expected).square().mean()),
                "pearson": figures.pearson(given, expected),
                "spearman": figures.spearman(given, expected),
            }
        if self._task.problem_type == "multi_label_classification":
            chosen_BC, there_BC = logits_BC > 0, targets_BC > 0
        else:
            classes = torch.arange(logits_BC.shape[1])
            chosen_BC = logits_BC.argmax(dim=1, keepdim=True) == classes
            there_BC = targets_BC == classes
        return {
            "acc": figures.accuracy(chosen_BC, there_BC),
            "f1": figures.macro_f1(chosen_BC, there_BC),
        }
