"""Embeddings: one vector for a text, near to those of texts that are like it.

Shapes: B rows, S texts of all rows, T tokens, N documents, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swiftcore.recipe.sections import TrainSection
from swiftcore.recipe.tasks import Pooling, Task, compares_processes, loss_of, metrics_of
from swiftcore.training.distributed.gathering import gather_rows
from swiftcore.training.distributed.world import World
from swiftcore.training.forward import replace_forward
from swiftcore.training.objectives import figures, losses
from swiftcore.training.objectives.objective import SILENT, Batch, Outputs
from swiftcore.training.objectives.samples import SampleCollator, SampleObjective

_DEPTH = 10


def pool(hidden_STD: Tensor, mask_ST: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector of length 1 for each text, [S, D].

    Args:
        hidden_STD: hidden states of the last layer.
        mask_ST: 1 for tokens, 0 for the padding behind them.
        pooling: the first token's, the last one's, or the mean over tokens.
    """
    if pooling == "cls":
        vectors = hidden_STD[:, 0]
    elif pooling == "last":
        vectors = hidden_STD[torch.arange(len(hidden_STD)), mask_ST.sum(1) - 1]
    else:
        mask = mask_ST[..., None].to(hidden_STD.dtype)
        vectors = (hidden_STD * mask).sum(1) / mask.sum(1)
    return functional.normalize(vectors.float(), dim=-1)


class EmbeddingObjective(SampleObjective):
    """A loss over anchors, their positives and their negatives.

    infonce is divided by the number of anchors, the losses of pairs by the number of pairs, and
    online_contrastive, which sums a batch's hard pairs, by the number of batches.

    Args:
        task: how vectors are pooled; resolved, not None.
        train: the loss and its settings, and which figures an evaluation reports.
        pad_id: token that fills short texts.
        world: all processes; infonce compares the rows that they have at a time.
    """

    def __init__(
        self, task: Task, train: TrainSection, *, pad_id: int, world: World | None = None
    ) -> None:
        super().__init__(SampleCollator(pad_id, train.infonce_hard_negatives))
        self._world = world or World()
        self._compares_processes = compares_processes(task, train) and self._world.size > 1
        self._task = task
        self._train = train
        self._loss = loss_of(task, train)

    def install(self, model: Any) -> list[str]:
        """Make a model's forward return loss and embeddings."""
        objective, pooling = self, self._task.pooling or "last"

        def forward(
            self: nn.Module,
            input_ids: Tensor,
            attention_mask: Tensor,
            targets: Tensor,
            sizes: Tensor,
            keys: Tensor,
            silent: Tensor | None = None,
            **_from_wrappers: Any,
        ) -> dict[str, Tensor]:
            given = {"input_ids": input_ids, "attention_mask": attention_mask}
            hidden_STD = type(self).forward(self, **given).last_hidden_state
            vectors_SD = pool(hidden_STD, attention_mask, pooling)
            loss = objective.loss(vectors_SD, targets, sizes, keys, silent)
            return {"loss": loss, "scores": vectors_SD.detach()}

        replace_forward(model, forward)
        return [f"loss {self._loss} over embeddings pooled by {pooling}"]

    def inputs(self, batch: Batch) -> Batch:
        """Return texts, targets, which belong together, and whether the batch is silent."""
        found = super().inputs(batch)
        return {**found, SILENT: batch[SILENT]} if SILENT in batch else found

    def loss(
        self,
        vectors_SD: Tensor,
        targets_N: Tensor,
        sizes_B: Tensor,
        keys_S: Tensor,
        silent: Tensor | None = None,
    ) -> Tensor:
        """Return the summed loss of a batch's embeddings."""
        if self._compares_processes:
            return self._loss_over_processes(vectors_SD, sizes_B, keys_S, bool(silent))
        anchors_BD, documents_ND, owners_N, is_document_S = _divided(vectors_SD, sizes_B)
        if self._loss == "infonce":
            return losses.infonce(
                anchors_BD, documents_ND, owners_N, keys_S[is_document_S], self._train
            )
        of_pairs = {
            "cosine_similarity": losses.cosine_similarity,
            "contrastive": losses.contrastive,
            "online_contrastive": losses.online_contrastive,
        }
        return of_pairs[self._loss]((anchors_BD[owners_N] * documents_ND).sum(1), targets_N)

    def _loss_over_processes(
        self, vectors_SD: Tensor, sizes_B: Tensor, keys_S: Tensor, silent: bool
    ) -> Tensor:
        """Return infonce of this process's anchors, among the documents of all processes."""
        if silent:
            # Part of no comparison, but the others wait for its share of the gradients.
            vectors_SD, sizes_B, keys_S = vectors_SD[:0], sizes_B[:0], keys_S[:0]
        given = self._world.gather((sizes_B.tolist(), keys_S.tolist()))
        before = sum(len(sizes) for sizes, _ in given[: self._world.rank])
        all_sizes = torch.tensor([n for sizes, _ in given for n in sizes], device=sizes_B.device)
        all_keys = torch.tensor([key for _, keys in given for key in keys], device=keys_S.device)
        vectors_SD = gather_rows(vectors_SD, [len(keys) for _, keys in given], self._world.rank)
        anchors_BD, documents_ND, owners_N, is_document_S = _divided(vectors_SD, all_sizes)
        counted = slice(before, before + len(sizes_B))
        keys_N = all_keys[is_document_S]
        return losses.infonce(anchors_BD, documents_ND, owners_N, keys_N, self._train, counted)

    def divisor(self, batch: Batch) -> float:
        """Return the number of anchors, pairs or batches."""
        if self._loss == "online_contrastive":
            return 1
        return len(batch["sizes"]) if self._loss == "infonce" else self.num_targets(batch)

    def num_targets(self, batch: Batch) -> int:
        """Return the number of pairs."""
        return len(batch["targets"])

    def score(self) -> "LikenessScore":
        """Return an empty score."""
        return LikenessScore(metrics_of(self._task, self._train))


class LikenessScore:
    """Retrieval among all documents of an evaluation, and agreement with labelled likeness.

    mrr, ndcg (of the first ten) and recall (the first alone) say where an anchor finds its
    positive among the documents of all rows, each text once; margin is mean_pos - mean_neg, the
    mean cosines of anchors with their positives and with all others. Rows whose positive is
    labelled below 1 take part in pearson and spearman alone.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._corpus: dict[tuple[int, ...], int] = {}
        self._vectors: list[Tensor] = []
        self._anchors: list[Tensor] = []
        self._places: list[int] = []
        self._cosines: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, batch: Batch, outputs: Outputs) -> None:
        """Take the embeddings of a batch in."""
        vectors_SD, sizes_B = outputs["scores"].double().cpu(), batch["sizes"].cpu()
        anchors_BD, documents_ND, owners_N, is_document_S = _divided(vectors_SD, sizes_B)
        targets_N = batch["targets"].double().cpu()
        self._cosines.append((anchors_BD[owners_N] * documents_ND).sum(1))
        self._targets.append(targets_N)
        lengths = batch["lengths"].tolist()
        ids = [ids[:n] for ids, n in zip(batch["input_ids"].tolist(), lengths, strict=True)]
        texts = [tuple(text) for text, wanted in zip(ids, is_document_S, strict=True) if wanted]
        places = [
            self._place(text, vector) for text, vector in zip(texts, documents_ND, strict=True)
        ]
        firsts = torch.searchsorted(owners_N, torch.arange(len(sizes_B))).tolist()
        for row, first in enumerate(firsts):
            if targets_N[first] == 1:
                self._anchors.append(anchors_BD[row])
                self._places.append(places[first])

    def metrics(self) -> dict[str, float]:
        """Return the figures over all rows, without those that the rows don't give."""
        found = self._correlation() | (self._retrieval() if self._anchors else {})
        return {name: value for name in self._names if (value := found.get(name)) is not None}

    def _place(self, text: tuple[int, ...], vector_D: Tensor) -> int:
        if text not in self._corpus:
            self._corpus[text] = len(self._vectors)
            self._vectors.append(vector_D)
        return self._corpus[text]

    def _correlation(self) -> dict[str, float | None]:
        cosines, targets = torch.cat(self._cosines), torch.cat(self._targets)
        return {
            "pearson": figures.pearson(cosines, targets),
            "spearman": figures.spearman(cosines, targets),
        }

    def _retrieval(self) -> dict[str, float | None]:
        corpus_ND = torch.stack(self._vectors)
        sums = dict.fromkeys(("mrr", "ndcg", "recall", "mean_pos", "mean_neg"), 0.0)
        for anchor_D, place in zip(self._anchors, self._places, strict=True):
            cosines_N = corpus_ND @ anchor_D
            fits_N = torch.arange(len(corpus_ND)) == place
            reciprocal = figures.reciprocal_rank(cosines_N, fits_N)
            sums["mrr"] += reciprocal
            sums["recall"] += reciprocal == 1
            sums["ndcg"] += figures.ndcg(cosines_N, fits_N, _DEPTH)
            sums["mean_pos"] += float(cosines_N[place])
            sums["mean_neg"] += float(cosines_N[~fits_N].mean()) if len(corpus_ND) > 1 else 0.0
        means = {name: total / len(self._anchors) for name, total in sums.items()}
        return {**means, "margin": means["mean_pos"] - means["mean_neg"]}


def _divided(vectors_SD: Tensor, sizes_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return anchors [B, D], documents [N, D], the row of each, and which texts are documents."""
    starts_B = sizes_B.cumsum(0) - sizes_B
    is_document_S = torch.ones(len(vectors_SD), dtype=torch.bool, device=vectors_SD.device)
    is_document_S[starts_B] = False
    rows_B = torch.arange(len(sizes_B), device=vectors_SD.device)
    owners_N = rows_B.repeat_interleave(sizes_B - 1)
    return vectors_SD[starts_B], vectors_SD[is_document_S], owners_N, is_document_S
