"""The order of rows and the batches made of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from swiftcore.training.rows import IGNORED, Row


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


def _padded(values: list[list[Any]], fill: float, dtype: torch.dtype) -> Tensor:
    longest = max(map(len, values))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in values], dtype=dtype)
