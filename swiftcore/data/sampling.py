"""Which rows are taken, repeated and split off for validation.

The numbers are those of ms-swift, so a recipe keeps the sizes its users know; the random order is
our own. It is made from `random.Random.random()` alone, the one method whose sequence Python
promises to keep between versions.
"""

import random
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from swiftcore.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np


def sample_indices(
    num_rows: int,
    sample: int | None = None,
    split_ratio: float = 0.0,
    shuffle: bool = True,
    seed: int = 42,
) -> tuple[list[int], list[int]]:
    """Choose training and validation rows of one dataset.

    `sample` rows are taken in all (default: every row once). With a split,
    `max(int(min(num_rows, sample) * split_ratio), 1)` of them are validation rows: random ones,
    or the last ones without `shuffle`. Training rows come from what is left: full copies first,
    the remainder without repeats, random or from the head. A ratio of 1 makes all rows validation.

    Returns:
        (train, val): row indices; no index is in both.

    Raises:
        UsageError: a count, ratio or combination without meaning, or that leaves no training row.
        DataError: there is no row to choose from.
    """
    _check_arguments(num_rows, sample, split_ratio)
    count = num_rows if sample is None else sample
    rows = list(range(num_rows))
    rng = random.Random(seed)
    if split_ratio == 0:
        return _repeat(rows, count, shuffle, rng), []
    if split_ratio == 1:
        if count > num_rows:
            raise UsageError(
                "validation rows can't be repeated",
                where="split_ratio 1",
                found=f"{count} rows wanted of {num_rows}",
                do="lower the count, or remove it",
            )
        return [], _repeat(rows, count, shuffle, rng)
    num_val = max(int(min(num_rows, count) * split_ratio), 1)
    if num_val >= count or num_val >= num_rows:
        raise UsageError(
            "the split leaves no row for training",
            where=f"split_ratio {split_ratio}",
            found=f"{min(count, num_rows)} row(s), {num_val} of them for validation",
            do="take more rows, or set the split ratio to 0 and name a val_dataset",
        )
    order = shuffled(rows, rng) if shuffle else rows[-num_val:] + rows[:-num_val]
    val, rest = order[:num_val], sorted(order[num_val:])
    return _repeat(rest, count - num_val, shuffle, rng), val


def shuffled(items: Sequence[int], rng: random.Random) -> list[int]:
    """Return the items in a random order that is the same in every Python version."""
    return [items[place] for place in shuffled_places(len(items), rng).tolist()]


def shuffled_places(count: int, rng: random.Random) -> "np.ndarray":
    """Return the numbers below `count` in a random order; 16 bytes each while it works."""
    import numpy as np

    keys = array("d", (rng.random() for _ in range(count)))
    return np.argsort(np.frombuffer(keys, dtype=np.float64), kind="stable")


def shuffled_in_buffer(items: Sequence[int], size: int, rng: random.Random) -> list[int]:
    """Return the items as a stream is shuffled: each one drawn from a buffer that is filled up."""
    order: list[int] = []
    buffer: list[int] = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        place = int(rng.random() * size)
        order.append(buffer[place])
        buffer[place] = item
    return order + shuffled(buffer, rng)


def _repeat(rows: list[int], count: int, shuffle: bool, rng: random.Random) -> list[int]:
    copies, rest = divmod(count, len(rows))
    order = shuffled(rows, rng) if shuffle and rest else rows
    return rows * copies + order[:rest]


def _check_arguments(num_rows: int, sample: int | None, split_ratio: float) -> None:
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int)):
        raise UsageError("the row count is no whole number", where="sample", found=repr(sample))
    if sample is not None and sample < 1:
        raise UsageError(
            "the row count must be above zero", where="sample", found=sample, expected="n >= 1"
        )
    if not 0 <= split_ratio <= 1:
        raise UsageError(
            "the split ratio is a share",
            where="split_ratio",
            found=split_ratio,
            expected="a number from 0 to 1",
        )
    if num_rows < 1:
        raise DataError("there are no rows to choose from", found=f"{num_rows} rows")
