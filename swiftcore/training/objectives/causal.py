"""Next-token prediction: weighted cross-entropy over label tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swiftcore.recipe.sections import TrainSection
from swiftcore.training.batches import Collator, SideBySide
from swiftcore.training.loss import (
    LabelLossOptions,
    TokenLoss,
    cross_entropy,
    dft_loss,
    install_label_loss,
)
from swiftcore.training.objectives.objective import Batch, Outputs, Score
from swiftcore.training.plugins import plugin
from swiftcore.training.rows import IGNORED, Row
from swiftcore.training.token_figures import TokenFigures, TokenScore

if TYPE_CHECKING:
    from swiftcore.training.token_group import TokenGroup

_INPUTS = ("input_ids", "labels", "loss_weights", "row_lengths")


class CausalObjective:
    """sum(weight * cross-entropy) over label tokens, divided by their number or their weights.

    Args:
        train: which divisor, and whether logits are made of label tokens alone.
        pad_id: token that fills short rows.
        side_by_side: rows of a batch form one sequence, instead of one padded line each.
        figures: what an evaluation tells beside the loss.
        group: processes that share the tokens of each sequence.
    """

    def __init__(
        self,
        train: TrainSection,
        *,
        pad_id: int,
        side_by_side: bool,
        figures: TokenFigures | None = None,
        group: "TokenGroup | None" = None,
    ) -> None:
        self._train = train
        self._group = group
        self._figures = figures
        self._collator = SideBySide() if side_by_side else Collator(pad_id)

    def collate(self, rows: Sequence[Row | Sequence[Row]]) -> Batch:
        """Return tokens, labels, their weights where a row has some, lengths and row numbers."""
        return self._collator(rows)  # pyright: ignore[reportArgumentType]

    def install(self, model: Any) -> list[str]:
        """Make a model's forward return the label loss; how its logits are made is the note."""
        train = self._train
        options = LabelLossOptions(
            token_loss=_token_loss(train),
            balance=train.router_aux_loss_coef,
            figures=self._figures is not None,
            group=self._group,
        )
        return [install_label_loss(model, train.label_logits, options).describe()]

    def inputs(self, batch: Batch) -> Batch:
        """Return tokens, labels and what the label loss knows besides."""
        names = (*_INPUTS, "lengths") if self._train.router_aux_loss_coef else _INPUTS
        return {name: value for name, value in batch.items() if name in names}

    def divisor(self, batch: Batch) -> float:
        """Return a batch's label tokens, or the sum of their weights."""
        by_weights = self._train.loss_normalization == "weights"
        return _sum_weights(batch) if by_weights else self.num_targets(batch)

    def num_targets(self, batch: Batch) -> int:
        """Return the number of label tokens."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def score(self) -> Score:
        """Return the token figures that are asked for; none adds nothing to the loss."""
        return TokenScore(self._figures) if self._figures else LossAlone()


def _token_loss(train: TrainSection) -> TokenLoss:
    if train.enable_dft_loss:
        return dft_loss
    if train.loss_type in (None, "cross_entropy"):
        return cross_entropy
    return plugin("loss", train.loss_type)


class LossAlone:
    """The score of an evaluation whose only figure is the loss."""

    def add(self, batch: Batch, outputs: Outputs) -> None:
        """Take nothing in."""

    def metrics(self) -> dict[str, float]:
        """Return no figures."""
        return {}


def _sum_weights(batch: Batch) -> float:
    labels = batch["labels"][:, 1:]
    counted = labels != IGNORED
    if "loss_weights" not in batch:
        return int(counted.sum())
    return float(batch["loss_weights"][:, 1:][counted].sum())
