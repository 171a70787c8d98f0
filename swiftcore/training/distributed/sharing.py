"""Each process's part of each batch: N processes with b rows see what one with N x b rows sees.

A round is what all processes take at a time, N x b rows of the common order. In the last round of
an epoch rows are dealt out evenly; a process that gets none takes part with a row that counts
nothing, for the others wait for its gradients. Processes that share tokens take the same rows, and
count as one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler

from swiftcore.errors import DataError
from swiftcore.training.batches import Batches
from swiftcore.training.distributed.world import World
from swiftcore.training.objectives import Objective, Score
from swiftcore.training.objectives.causal import LossAlone
from swiftcore.training.objectives.objective import SILENT

if TYPE_CHECKING:
    from transformers import TrainingArguments

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Stand:
    """An item that counts nothing, for a process that has no row in a round."""

    item: Any


class Share(Sampler[Any]):
    """One process's part of an order.

    Args:
        order: the order that all processes share.
        batch_rows: rows of a process in a round.
        world: the processes.
    """

    def __init__(self, order: Any, batch_rows: int, world: World) -> None:
        self._order = order
        self._rows = batch_rows
        self._world = world

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch whose order is asked for next."""
        if hasattr(self._order, "set_epoch"):
            self._order.set_epoch(epoch)

    def __len__(self) -> int:
        rounds, rest = divmod(len(self._order), self._rows * self._world.teams)
        return rounds * self._rows + (max(1, self._part(rest)[1]) if rest else 0)

    def __iter__(self) -> Iterator[Any]:
        together: list[Any] = []
        whole = self._rows * self._world.teams
        for item in self._order:
            together.append(item)
            if len(together) == whole:
                start = self._rows * self._world.team
                yield from together[start : start + self._rows]
                together = []
        if together:
            start, count = self._part(len(together))
            yield from together[start : start + count] or [Stand(together[0])]

    def _part(self, num_rows: int) -> tuple[int, int]:
        """Return where this process's rows of a last round begin, and how many they are."""
        each, more = divmod(num_rows, self._world.teams)
        team = self._world.team
        return team * each + min(team, more), each + (team < more)


class _Standing(Sequence[Any]):
    """Rows that may be asked for by a `Stand`, and then say so."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: Any) -> Any:
        return Stand(self._rows[item.item]) if isinstance(item, Stand) else self._rows[item]


def share_batches(batches: Batches, args: "TrainingArguments", world: World) -> Batches:
    """Return this process's part of a run's batches.

    Args:
        batches: those of all processes.
        args: say how many rows, or packed sequences, a process takes in a round.
        world: the processes.

    Raises:
        DataError: there are fewer rows than processes.
    """
    if world.size == 1:
        return batches
    if len(batches.order) < world.teams:
        raise DataError(
            "there are fewer rows than training processes",
            where="the train split",
            found=f"{len(batches.order)} rows or packed sequences, {world.teams} processes",
            expected="one for each process, at least",
            do="start fewer processes (NPROC_PER_NODE), or give more rows",
        )
    order: Any = Share(batches.order, args.per_device_train_batch_size, world)
    if not batches.eval:
        return replace(batches, train=_Standing(batches.train), order=order)
    eval_order: Any = batches.eval_order or SequentialSampler(batches.eval)
    return replace(
        batches,
        train=_Standing(batches.train),
        order=order,
        eval=_Standing(batches.eval),
        eval_order=Share(eval_order, args.per_device_eval_batch_size, world),
    )


def shared_objective(objective: Objective, world: World) -> Objective:
    """Return an objective for a process that sees its own batches alone."""
    return objective if world.size == 1 else SharedObjective(objective, world)


class SharedObjective:
    """An objective of which each process sees its own batches, and which knows silent ones.

    Args:
        objective: the objective of a single process.
        world: the processes.
    """

    def __init__(self, objective: Objective, world: World) -> None:
        self._objective = objective
        self._world = world

    def collate(self, rows: Sequence[Any]) -> Batch:
        """Return the objective's batch, and whether it is silent."""
        silent = isinstance(rows[0], Stand)
        batch = self._objective.collate([row.item for row in rows] if silent else rows)
        if silent:
            batch["lengths"] = torch.zeros_like(batch["lengths"])
        batch[SILENT] = torch.tensor(silent)
        return batch

    def install(self, model: Any) -> list[str]:
        """Do as the objective does."""
        return self._objective.install(model)

    def inputs(self, batch: Batch) -> Batch:
        """Return what the model's forward takes of a batch."""
        return self._objective.inputs(batch)

    def divisor(self, batch: Batch) -> float:
        """Return what a batch adds to the divisor, 0 for a silent one.

        Each process that shares its tokens counts a part of it, and together they count it once.
        """
        return 0 if batch[SILENT] else self._objective.divisor(batch) / self._world.sharers

    def num_targets(self, batch: Batch) -> int:
        """Return how many targets of a batch carry loss, 0 for a silent one."""
        return 0 if batch[SILENT] else self._objective.num_targets(batch)

    def score(self) -> Score:
        """Return a score of the batches of all processes."""
        score = self._objective.score()
        return score if isinstance(score, LossAlone) else _SharedScore(score, self._world)


class _SharedScore:
    """A score that takes in what every process has, in the same order in each."""

    def __init__(self, score: Score, world: World) -> None:
        self._score = score
        self._world = world

    def add(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Take in what the model gave for the batches of a round."""
        here = {name: value.cpu() for name, value in batch.items()}
        gave = {name: value.cpu() for name, value in outputs.items() if torch.is_tensor(value)}
        for one, its in self._world.gather_teams((here, gave)):
            if not one[SILENT]:
                self._score.add(one, its)

    def metrics(self) -> dict[str, float]:
        """Return the figures over the batches of all processes."""
        return self._score.metrics()
