"""Several sources mixed by probabilities instead of one after the other."""

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from swiftcore.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Mixed:
    """Rows of several sources, mixed.

    Args:
        rows: all of them in the mixed order.
        parts: what each source gave, in its own order.
    """

    rows: "np.ndarray"
    parts: "list[np.ndarray]"


def appended(parts: "Sequence[np.ndarray]") -> Mixed:
    """Return the sources' rows one source after the other."""
    import numpy as np

    return Mixed(np.concatenate([np.empty(0, dtype=np.int64), *parts]), list(parts))


def interleaved(
    parts: "Sequence[np.ndarray]",
    probabilities: Sequence[float],
    stopping: Literal["first_exhausted", "all_exhausted"],
    seed: int,
) -> Mixed:
    """Mix sources row by row: each row comes from a source drawn with its probability.

    Semantics of `datasets.interleave_datasets`: with first_exhausted the mix ends when one source
    has given its last row; with all_exhausted a source that is used up starts again, until every
    one of them has given its last row. The random order is our own.

    Raises:
        UsageError: the probabilities don't fit the sources.
        DataError: a source has no row.
    """
    import numpy as np

    _check(parts, probabilities)
    borders = list(accumulate(probabilities))
    rng = random.Random(f"{seed}/mix")
    places = [0] * len(parts)
    unfinished = {number for number, share in enumerate(probabilities) if share > 0}
    drawn: list[int] = []
    while unfinished:
        number = min(bisect_right(borders, rng.random() * borders[-1]), len(parts) - 1)
        drawn.append(number)
        places[number] += 1
        if places[number] >= len(parts[number]):
            unfinished.discard(number)
            if stopping == "first_exhausted":
                break
    given = [np.resize(part, count) for part, count in zip(parts, places, strict=True)]
    order = np.argsort(np.asarray(drawn, dtype=np.int64), kind="stable")
    rows = np.empty(len(drawn), dtype=np.int64)
    rows[order] = np.concatenate(given)
    return Mixed(rows, given)


def _check(parts: "Sequence[np.ndarray]", probabilities: Sequence[float]) -> None:
    problem = None
    if len(probabilities) != len(parts):
        problem = f"{len(probabilities)} probabilities for {len(parts)} sources"
    elif any(not 0 <= share <= 1 for share in probabilities):
        problem = f"probabilities {', '.join(map(str, probabilities))}"
    elif not math.isclose(sum(probabilities), 1.0, abs_tol=1e-6):
        problem = f"probabilities that add up to {sum(probabilities):g}"
    if problem is not None:
        raise UsageError(
            "the sources can't be mixed by these probabilities",
            where="data.interleave_prob",
            found=problem,
            expected="one number from 0 to 1 for each entry of data.dataset, 1 in all",
        )
    if any(not len(part) for part in parts):
        raise DataError(
            "a source to be mixed has no row",
            where="data.interleave_prob",
            found=f"source {next(i for i, part in enumerate(parts) if not len(part)) + 1} is empty",
            do="remove the source; all its rows are bad, duplicates or evaluated ones",
        )
