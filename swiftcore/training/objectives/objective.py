"""The seam between the trainer and what it trains for."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from swiftcore.training.rows import Row

# Of several processes: whether a batch stands for one that has no rows left, and counts nothing.
SILENT = "silent"

Batch = dict[str, Tensor]
Outputs = Mapping[str, Tensor]


class Score(Protocol):
    """What an evaluation gathers from batch to batch."""

    def add(self, batch: Batch, outputs: Outputs) -> None:
        """Take in what the model gave for a batch."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return the figures over everything taken in, by names without `eval_`."""
        ...


class Objective(Protocol):
    """One kind of task, as the trainer asks for it.

    A loss is summed over the targets of a batch and divided by the trainer, by the divisors of all
    batches of an optimizer step: so gradient accumulation changes nothing.
    """

    def collate(self, rows: Sequence[Row | Sequence[Row]]) -> Batch:
        """Return a batch: what the model takes, `rows` (their numbers) and `lengths` (tokens)."""
        ...

    def install(self, model: Any) -> list[str]:
        """Make a model's forward return {"loss": summed loss} and more, and say what is notable.

        peft, autocast and data-parallel wrappers act on `forward`: the loss has to be made inside.
        """
        ...

    def inputs(self, batch: Batch) -> Batch:
        """Return what the model's forward takes of a batch."""
        ...

    def divisor(self, batch: Batch) -> float:
        """Return what a batch adds to the divisor of a summed loss."""
        ...

    def num_targets(self, batch: Batch) -> int:
        """Return how many targets of a batch carry loss; tokens, for next-token prediction."""
        ...

    def score(self) -> Score:
        """Return an empty score for an evaluation."""
        ...
