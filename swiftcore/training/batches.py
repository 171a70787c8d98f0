"""The order of rows and the batches made of them: padded, side by side, or packed.

A sampler says which rows come when; a collator makes tensors of them. In a packed run one "row" of
the batch is a tuple of rows, so both work with tuples as they do with single rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from swiftcore.errors import UsageError
from swiftcore.models.files import TEMPLATE_FILE, read_json
from swiftcore.template import EncodedRows
from swiftcore.training.job import TrainJob
from swiftcore.training.packing import Packing, plan_packing
from swiftcore.training.rows import IGNORED, Row


@dataclass(frozen=True)
class Batches:
    """What a run's batches are made of.

    Args:
        train: the training rows; takes what `order` yields.
        order: order of the training rows.
        eval: the validation rows, if there are any; takes what `eval_order` yields.
        eval_order: their order; None is as they come.
        side_by_side: rows of a batch form one sequence, instead of one padded line each.
        longest: tokens of the longest row.
        capacity: tokens that a line of a batch may hold: a packed sequence, or the longest row.
        notes: what is worth saying about it.
        metrics: figures for the record.
    """

    train: Any
    order: "RowOrder | PackedOrder"
    eval: Any
    eval_order: "PackedOrder | None"
    side_by_side: bool
    longest: int
    capacity: int
    notes: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def plan_batches(job: TrainJob, rows: EncodedRows, eval_rows: EncodedRows | None) -> Batches:
    """Decide which rows come together.

    Raises:
        UsageError: nothing says how long a packed sequence may be.
        DataError: a row is longer than that.
    """
    train = job.train
    longest = max(max(rows.lengths), max(eval_rows.lengths, default=0) if eval_rows else 0)
    if not train.packing:
        micro, accumulation = job.batch_plan()
        sharers = job.readers()
        order = RowOrder(
            rows.lengths,
            seed=train.seed,
            shuffle=train.train_dataloader_shuffle,
            group_rows=micro * accumulation * sharers if train.group_by_length else None,
        )
        return Batches(rows, order, eval_rows, None, train.padding_free, longest, longest)
    capacity = _capacity(job)
    strategy = train.packing_strategy or "binpack"
    shuffle = train.train_dataloader_shuffle
    order = PackedOrder(rows.lengths, capacity, strategy, seed=train.seed, shuffle=shuffle)
    eval_order = None
    if eval_rows:
        eval_order = PackedOrder(
            eval_rows.lengths, capacity, strategy, seed=train.seed, shuffle=False
        )
    return Batches(
        RowTuples(rows),
        order,
        RowTuples(eval_rows) if eval_rows else None,
        eval_order,
        side_by_side=True,
        longest=longest,
        capacity=capacity,
        notes=[order.packing.describe()],
        metrics={
            "packing_efficiency": order.packing.efficiency,
            "packed_sequences": order.packing.num_bins,
        },
    )


def _capacity(job: TrainJob) -> int:
    file = job.encoded_dir / TEMPLATE_FILE
    encoded_for = read_json(file).get("max_length") if file.is_file() else None
    capacity = job.train.packing_length or encoded_for
    if capacity is None:
        raise UsageError(
            "nothing says how long a packed sequence may be",
            where="train.packing_length",
            found="no length, there or in template.max_length",
            expected="tokens a sequence may hold",
            do="set train.packing_length or template.max_length",
        )
    return capacity


class RowOrder(Sampler[int]):
    """Order of the rows in each epoch, from seed and epoch alone.

    transformers' samplers draw from the global generator or restart after a resume; this one gives
    epoch 3 the same order whether or not epochs 1 and 2 ran in this process.
    """

    def __init__(
        self, lengths: Sequence[int], *, seed: int, shuffle: bool, group_rows: int | None
    ) -> None:
        self._lengths = list(lengths)
        self._seed = seed
        self._shuffle = shuffle
        self._group_rows = group_rows
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch whose order is asked for next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        if self._group_rows:
            from transformers.trainer_pt_utils import get_length_grouped_indices

            yield from get_length_grouped_indices(
                self._lengths, self._group_rows, generator=generator
            )
        elif self._shuffle:
            yield from torch.randperm(len(self._lengths), generator=generator).tolist()
        else:
            yield from range(len(self._lengths))


class PackedOrder(Sampler[tuple[int, ...]]):
    """Which rows share a sequence, and the order of the sequences, from seed and epoch alone.

    With shuffling, each epoch mixes rows of equal length anew before best fit takes them, and
    shuffles the sequences; there are as many in every epoch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        capacity: int,
        strategy: Any,
        *,
        seed: int,
        shuffle: bool,
    ) -> None:
        self._lengths = lengths
        self._capacity = capacity
        self._strategy = strategy
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0
        self.packing = plan_packing(lengths, capacity, strategy=strategy)

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch whose order is asked for next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self.packing.num_bins

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        if not self._shuffle:
            return self.packing.bins()
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        return self._mixed(generator).bins(order)

    def _mixed(self, generator: torch.Generator) -> Packing:
        if self._strategy == "sequential":
            return self.packing
        mix = torch.randperm(len(self._lengths), generator=generator).numpy()
        return plan_packing(self._lengths, self._capacity, mix=mix)


class RowTuples(Sequence[list[Row]]):
    """Encoded rows that are asked for by tuples of row numbers."""

    def __init__(self, rows: EncodedRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, numbers: Any) -> Any:
        """Return the rows of these numbers."""
        return [self._rows[number] for number in numbers]


class Collator:
    """Pads rows on the right into tensors [rows, longest row]."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return input_ids, labels, lengths, row numbers, and loss_weights if a row has them."""
        batch = {
            "input_ids": _padded([row["input_ids"] for row in rows], self._pad_id, torch.long),
            "labels": _padded([row["labels"] for row in rows], IGNORED, torch.long),
            "lengths": torch.tensor([len(row["input_ids"]) for row in rows]),
            "rows": torch.tensor([row["row"] for row in rows]),
        }
        if any(row.get("loss_scale") is not None for row in rows):
            weights = [row.get("loss_scale") or [1.0] * len(row["labels"]) for row in rows]
            batch["loss_weights"] = _padded(weights, 0.0, torch.float32)
        return batch


class SideBySide:
    """Puts rows one after the other into tensors [1, tokens of all rows]."""

    def __call__(self, rows: Sequence[Row | Sequence[Row]]) -> dict[str, Tensor]:
        """Return what `Collator` returns, and row_lengths, which says where the rows are."""
        single = [row for item in rows for row in ([item] if isinstance(item, dict) else item)]
        # The last token of a row would be asked for the first one of its neighbour.
        labels = [[IGNORED, *row["labels"][1:]] for row in single]
        lengths = torch.tensor([len(row["input_ids"]) for row in single])
        batch = {
            "input_ids": _joined([row["input_ids"] for row in single], torch.long),
            "labels": _joined(labels, torch.long),
            "lengths": lengths,
            "row_lengths": lengths,
            "rows": torch.tensor([row["row"] for row in single]),
        }
        if any(row.get("loss_scale") is not None for row in single):
            weights = [row.get("loss_scale") or [1.0] * len(row["labels"]) for row in single]
            batch["loss_weights"] = _joined(weights, torch.float32)
        return batch


def _padded(values: list[list[Any]], fill: float, dtype: torch.dtype) -> Tensor:
    longest = max(map(len, values))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in values], dtype=dtype)


def _joined(values: list[list[Any]], dtype: torch.dtype) -> Tensor:
    return torch.tensor([[value for row in values for value in row]], dtype=dtype)
