"""Figures of label tokens beside the loss: accuracy, and the loss of each channel of rows.

Shapes: B rows of a batch, T tokens, N label tokens of all rows, in the rows' order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from swiftcore.template.channels import load_channels
from swiftcore.training.job import TrainJob
from swiftcore.training.rows import IGNORED

# name of a figure -> its sum and what to divide it by
Sums = dict[str, list[float]]


@dataclass(frozen=True)
class TokenFigures:
    """What is told of label tokens.

    Args:
        accuracy: of tokens, or of rows all of whose label tokens are right; None: not told.
        channels: row number -> channel; None: losses are not told apart.
    """

    accuracy: Literal["token", "seq"] | None
    channels: Mapping[int, str] | None

    @classmethod
    def of(cls, job: TrainJob, split: str) -> "TokenFigures | None":
        """Return what a job wants told of a split's rows; None when nothing is."""
        train = job.train
        if not train.enable_channel_loss and train.acc_strategy is None:
            return None
        channels = load_channels(job.encoded_dir, split) if train.enable_channel_loss else None
        return cls(train.acc_strategy, channels)

    def sums(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Sums:
        """Return what a batch adds.

        `loss_<channel>` is sum(weight * loss) over the channel's label tokens, divided by their
        number; rows without a channel are the channel None, as in ms-swift.
        """
        counts = _labels_of_rows(batch)
        found: Sums = {}
        if self.accuracy is not None:
            hits = [part.tolist() for part in outputs["token_hits"].split(counts)]
            if self.accuracy == "token":
                _add(found, "token_acc", sum(map(sum, hits)), sum(counts))
            else:
                _add(found, "seq_acc", sum(all(row) for row in hits if row), sum(map(bool, hits)))
        if self.channels is not None:
            losses = outputs["token_losses"].split(counts)
            numbers = batch["rows"].tolist()
            for number, loss_N, count in zip(numbers, losses, counts, strict=True):
                if count:
                    channel = self.channels.get(number)
                    _add(found, f"loss_{channel}", float(loss_N.sum()), count)
        return found


class TokenScore:
    """The token figures of an evaluation.

    Args:
        figures: what is told.
    """

    def __init__(self, figures: TokenFigures) -> None:
        self._figures = figures
        self._sums: Sums = {}

    def add(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Take in what the model gave for a batch."""
        merge(self._sums, self._figures.sums(batch, outputs))

    def metrics(self) -> dict[str, float]:
        """Return the figures over everything taken in."""
        return means(self._sums)


def merge(sums: Sums, more: Sums) -> None:
    """Add sums to others in place."""
    for name, (value, count) in more.items():
        _add(sums, name, value, count)


def means(sums: Sums) -> dict[str, float]:
    """Return each sum divided by its count, sorted by name."""
    return {name: value / count for name, (value, count) in sorted(sums.items()) if count}


def _add(sums: Sums, name: str, value: float, count: float) -> None:
    place = sums.setdefault(name, [0.0, 0.0])
    place[0] += value
    place[1] += count


def _labels_of_rows(batch: Mapping[str, Tensor]) -> list[int]:
    """Return the number of label tokens of each row, padded or side by side."""
    labels = batch["labels"]
    if "row_lengths" not in batch:
        return (labels[:, 1:] != IGNORED).sum(dim=1).tolist()
    rows = labels[0].split(batch["row_lengths"].tolist())
    return [int((row != IGNORED).sum()) for row in rows]
