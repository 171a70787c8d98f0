"""Reranking: a score for a query with each of its documents, by a head or by a word.

Shapes: B rows, S texts (a query with a document each), D width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swiftcore.recipe.sections import TrainSection
from swiftcore.recipe.tasks import Task, loss_of, metrics_of
from swiftcore.training.forward import replace_forward
from swiftcore.training.heads import hidden_states, replay
from swiftcore.training.objectives import figures, losses
from swiftcore.training.objectives.objective import Batch, Outputs
from swiftcore.training.objectives.samples import SampleCollator, SampleObjective


class RankingObjective(SampleObjective):
    """A loss over the documents of each query.

    pointwise_reranker is divided by the number of documents, listwise_reranker by that of lists.

    Args:
        task: whether scores come from a head or from the logits of two words.
        train: the loss and its settings, and which figures an evaluation reports.
        pad_id: token that fills short texts.
        separator: token between a query and its document.
        words: tokens of a document that fits and of one that does not; None: the model has a head.
    """

    def __init__(
        self,
        task: Task,
        train: TrainSection,
        *,
        pad_id: int,
        separator: int | None = None,
        words: tuple[int, int] | None,
    ) -> None:
        super().__init__(SampleCollator(pad_id), separator)
        self._task = task
        self._train = train
        self._loss = loss_of(task, train)
        self._words = words

    def install(self, model: Any) -> list[str]:
        """Make a model's forward return loss and scores."""
        objective, words = self, self._words

        def forward(
            self: nn.Module,
            input_ids: Tensor,
            attention_mask: Tensor,
            targets: Tensor,
            sizes: Tensor,
            **_from_wrappers: Any,
        ) -> dict[str, Tensor]:
            if words is None:
                given = objective.model_inputs(self, input_ids, attention_mask)
                scores_S = type(self).forward(self, **given).logits[:, 0].float()
            else:
                scores_S = word_scores(self, input_ids, attention_mask, words)
            loss = objective.loss(scores_S, targets, sizes)
            return {"loss": loss, "scores": scores_S.detach()}

        replace_forward(model, forward)
        by = "a head" if words is None else f"the logits of tokens {words[0]} and {words[1]}"
        return [f"loss {self._loss} over scores of {by}"]

    def loss(self, scores_S: Tensor, targets_S: Tensor, sizes_B: Tensor) -> Tensor:
        """Return the summed loss of a batch's scores."""
        if self._loss == "pointwise_reranker":
            return losses.pointwise(scores_S, targets_S)
        return losses.listwise(
            scores_S,
            targets_S,
            sizes_B.tolist(),
            self._train.listwise_reranker_temperature,
            self._train.listwise_reranker_min_group_size,
        )

    def divisor(self, batch: Batch) -> float:
        """Return the number of documents, or of lists."""
        if self._loss == "pointwise_reranker":
            return self.num_targets(batch)
        least = self._train.listwise_reranker_min_group_size
        return losses.num_lists(batch["targets"], batch["sizes"].tolist(), least)

    def num_targets(self, batch: Batch) -> int:
        """Return the number of documents."""
        return len(batch["targets"])

    def score(self) -> "RankScore":
        """Return an empty score."""
        return RankScore(metrics_of(self._task, self._train))


def word_scores(
    causal: Any, input_ids_ST: Tensor, mask_ST: Tensor, words: tuple[int, int]
) -> Tensor:
    """Return logit(fits) - logit(does not) of the token after each text, [S].

    Its sigmoid is the softmax over the two words. Source: Qwen3 Embedding, arXiv:2506.05176.
    """
    # Under causal attention no token sees the padding behind it.
    hidden_STD = hidden_states(causal, input_ids=input_ids_ST)
    last_SD = hidden_STD[torch.arange(len(hidden_STD)), mask_ST.sum(1) - 1]
    logits_SV = replay(causal, last_SD).float()
    return logits_SV[:, words[0]] - logits_SV[:, words[1]]


class RankScore:
    """Order of the documents of each query that has fitting ones and others, and their distance.

    mrr and ndcg are means over such queries; margin is the mean score of documents that fit less
    that of the others.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._scores: list[Tensor] = []
        self._fits: list[Tensor] = []

    def add(self, batch: Batch, outputs: Outputs) -> None:
        """Keep scores and targets of a batch, query by query."""
        sizes = batch["sizes"].tolist()
        self._scores += outputs["scores"].double().cpu().split(sizes)
        self._fits += (batch["targets"].cpu() > 0).split(sizes)

    def metrics(self) -> dict[str, float]:
        """Return the figures that the rows give."""
        found: dict[str, float] = {}
        pairs = [
            (scores, fits)
            for scores, fits in zip(self._scores, self._fits, strict=True)
            if fits.any() and not fits.all()
        ]
        if pairs:
            found["mrr"] = sum(figures.reciprocal_rank(*pair) for pair in pairs) / len(pairs)
            found["ndcg"] = sum(figures.ndcg(*pair) for pair in pairs) / len(pairs)
        scores, fits = torch.cat(self._scores), torch.cat(self._fits)
        if fits.any() and not fits.all():
            found["margin"] = float(scores[fits].mean() - scores[~fits].mean())
        return {name: found[name] for name in self._names if name in found}
