"""Rows that say nearly the same as an earlier row, found by MinHash and banded LSH.

The similarity of two texts is the Jaccard similarity s of their sets of 5-grams. `signature` keeps
128 minima; the share of equal minima estimates s with a standard error of sqrt(s(1-s)/128), 0.035
at s = 0.8. Signatures are cut into b bands of r minima; a pair meets in some band with probability
1-(1-s^r)^b. Every pair that meets is verified by the estimate, so wide bands only cost time: r is
the largest for which pairs at the threshold meet in 99 of 100 cases.

Signatures are made row by row, in any number of processes; groups are formed once, in row order.
"""

import copy
import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from swiftcore.data.cleaning.text import DIALOGUES, mixed, ngram_keys, row_text, text_key, units
from swiftcore.errors import EnvironmentMissing, UsageError

if TYPE_CHECKING:
    import numpy as np
    from datasketch import MinHash
    from numpy.typing import NDArray

NUM_PERMUTATIONS = 128
SHINGLE_UNITS = 5
SIGNATURE_BYTES = 4 * NUM_PERMUTATIONS
DEFAULT_THRESHOLD = 0.8

_MIN_RECALL = 0.99
# Bounds the memory of one step: shingles x permutations x 8 bytes.
_SHINGLES_AT_ONCE = 1024
# Rows made from one template meet in the same buckets; without a bound that is quadratic.
_MAX_BUCKET_ROWS = 200


def signature(text: str, context: str = "") -> bytes:
    """Return the MinHash signature of a text: 128 little-endian 32-bit minima.

    A text of fewer than five units counts as one shingle, so only equal ones are similar; a text
    without any unit counts as itself.

    Args:
        text: any text.
        context: what else must be equal; signatures of different contexts are not similar.

    Raises:
        EnvironmentMissing: datasketch is not installed.

    Source: datasketch, `MinHash`; Broder 1997, "On the resemblance and containment of documents".
    """
    # A shallow copy: `update_batch` replaces the minima, it does not change them in place.
    minima = copy.copy(_empty_minhash())
    import numpy as np

    shingles = ngram_keys(units(text), SHINGLE_UNITS)
    if not len(shingles):
        shingles = np.array([text_key(text)], dtype=np.uint64)
    if context:
        shingles = mixed(shingles ^ np.uint64(text_key(context)))
    hashes = (shingles >> np.uint64(32)).tolist()
    for start in range(0, len(hashes), _SHINGLES_AT_ONCE):
        minima.update_batch(hashes[start : start + _SHINGLES_AT_ONCE])
    return minima.hashvalues.astype("<u4").tobytes()


def row_signature(row: Mapping[str, object]) -> bytes:
    """Return the signature of a standard row.

    Rows are only similar when all columns beside their dialogues are equal, as exact duplicates'
    are: one question about two pictures, or with two lists of tools, is two rows.
    """
    context = {name: value for name, value in row.items() if name not in DIALOGUES}
    text = json.dumps(context, sort_keys=True, default=repr) if context else ""
    return signature(row_text(row), text)


@lru_cache(maxsize=1)
def _empty_minhash() -> "MinHash":
    try:
        from datasketch import MinHash
    except ImportError as err:
        raise EnvironmentMissing(
            "near duplicates are found by the package datasketch, which is not installed",
            do="pip install 'swiftcore[clean]'",
        ) from err
    # affine32 is named, not left to the default: signatures must stay comparable.
    return MinHash(num_perm=NUM_PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")


def meeting_probability(similarity: float, bands: int, width: int) -> float:
    """Return how likely two rows of this similarity share a band: 1-(1-s^r)^b."""
    return 1 - (1 - similarity**width) ** bands


def banding(threshold: float) -> tuple[int, int]:
    """Return (bands, minima a band) with which pairs at the threshold meet in 99 of 100 cases.

    Raises:
        UsageError: the threshold is no similarity that can be searched for.
    """
    if not 0.3 <= threshold <= 1:
        raise UsageError(
            "the similarity threshold is out of range",
            where="near-duplicate threshold",
            found=threshold,
            expected="a number from 0.3 to 1, 0.8 for texts that differ in a few words",
        )
    for width in range(NUM_PERMUTATIONS, 1, -1):
        bands = NUM_PERMUTATIONS // width
        if meeting_probability(threshold, bands, width) >= _MIN_RECALL:
            return bands, width
    return NUM_PERMUTATIONS, 1


def signature_table(signatures: "Iterable[bytes] | NDArray[np.uint32]") -> "NDArray[np.uint32]":
    """Return signatures as an array [rows, 128]."""
    import numpy as np

    if isinstance(signatures, np.ndarray):
        return signatures.astype(np.uint32, copy=False).reshape(-1, NUM_PERMUTATIONS)
    joined = b"".join(signatures)
    return np.frombuffer(joined, dtype="<u4").reshape(-1, NUM_PERMUTATIONS)


def band_keys(table: "NDArray[np.uint32]", bands: int, width: int) -> "NDArray[np.uint64]":
    """Return one 64-bit key for each row and band: [rows, bands]."""
    import numpy as np

    step = np.uint64(0x9E3779B97F4A7C15)
    keys = np.tile(np.arange(bands, dtype=np.uint64), (len(table), 1))
    for place in range(width):
        keys *= step
        keys += table[:, place : bands * width : width]
    return mixed(keys)


def needed_minima(threshold: float) -> int:
    """Return how many of the 128 minima must be equal for an estimate at the threshold."""
    return math.ceil(threshold * NUM_PERMUTATIONS - 1e-9)


def near_duplicate_groups(
    signatures: "Iterable[bytes] | NDArray[np.uint32]", threshold: float = DEFAULT_THRESHOLD
) -> "NDArray[np.int64]":
    """Return, for each row, the index of the earlier row it nearly equals, or -1.

    Rows are taken in order; a row is compared with the rows that were kept, and duplicates the
    first of them with an estimated similarity at the threshold or above. So the first row of a
    group stays, and every row that goes is near a row that stays. Of rows that share a bucket the
    first 200 kept ones are compared.

    Args:
        signatures: of the rows in order, as `signature` makes them.
        threshold: Jaccard similarity from which rows count as the same.

    Raises:
        UsageError: the threshold is out of range.
    """
    import numpy as np

    bands, width = banding(threshold)
    table = signature_table(signatures)
    duplicate_of = np.full(len(table), -1, dtype=np.int64)
    buckets, shared = _buckets(band_keys(table, bands, width))
    kept: dict[tuple[int, int], list[int]] = {}
    needed = needed_minima(threshold)
    for row in np.flatnonzero(shared.any(axis=1)).tolist():
        places = [(band, int(buckets[row, band])) for band in np.flatnonzero(shared[row]).tolist()]
        candidates = sorted({other for place in places for other in kept.get(place, ())})
        if candidates:
            equal = np.count_nonzero(table[candidates] == table[row], axis=1)
            near = np.flatnonzero(equal >= needed)
            if len(near):
                duplicate_of[row] = candidates[near[0]]
                continue
        for place in places:
            members = kept.setdefault(place, [])
            if len(members) < _MAX_BUCKET_ROWS:
                members.append(row)
    return duplicate_of


def _buckets(keys: "NDArray[np.uint64]") -> "tuple[NDArray[np.int32], NDArray[np.bool_]]":
    """Return the bucket of each row in each band, and whether another row is in it."""
    import numpy as np

    buckets = np.empty(keys.shape, dtype=np.int32)
    shared = np.empty(keys.shape, dtype=np.bool_)
    for band in range(keys.shape[1]):
        _, places, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        buckets[:, band] = places
        shared[:, band] = counts[places] > 1
    return buckets, shared
