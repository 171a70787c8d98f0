"""Which rows share a sequence: each row whole, in exactly one sequence, none above the capacity.

Best fit takes rows from the longest to the shortest and puts each where the least room is left
that still holds it. Rows of one length are interchangeable, so how many sequences come out depends
on the lengths alone, whatever order the rows are in: each epoch can mix them anew and still take
the same number of steps. Nothing here needs torch.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from swiftcore.errors import DataError

if TYPE_CHECKING:
    import numpy as np

Strategy = Literal["binpack", "sequential"]


@dataclass(frozen=True, slots=True)
class Packing:
    """A plan: the sequence that each row is in.

    Args:
        bin_of_row: number of the sequence of each row, int64.
        num_bins: sequences; numbers go from 0 to one less.
        num_tokens: tokens of all rows.
        capacity: tokens a sequence may hold.
    """

    bin_of_row: "np.ndarray"
    num_bins: int
    num_tokens: int
    capacity: int

    @property
    def efficiency(self) -> float:
        """Share of the sequences' room that holds tokens."""
        return self.num_tokens / (self.num_bins * self.capacity) if self.num_bins else 1.0

    def describe(self) -> str:
        """Return the figures in one line."""
        return (
            f"{len(self.bin_of_row)} rows packed into {self.num_bins} sequences of at most "
            f"{self.capacity} tokens, {self.efficiency:.1%} full"
        )

    def bins(self, order: Sequence[int] | None = None) -> Iterator[tuple[int, ...]]:
        """Yield the row numbers of each sequence, rising, in the given order of sequences."""
        import numpy as np

        rows = np.argsort(self.bin_of_row, kind="stable")
        ends = np.cumsum(np.bincount(self.bin_of_row, minlength=self.num_bins))
        for number in range(self.num_bins) if order is None else order:
            start = ends[number - 1] if number else 0
            yield tuple(rows[start : ends[number]].tolist())


def plan_packing(
    lengths: Sequence[int],
    capacity: int,
    *,
    strategy: Strategy = "binpack",
    mix: "np.ndarray | None" = None,
) -> Packing:
    """Put rows together.

    Args:
        lengths: tokens of each row.
        capacity: tokens a sequence may hold.
        strategy: binpack is best fit, and never needs more sequences than sequential; sequential
            fills one sequence after the other with the rows as they come.
        mix: order in which rows of one length are taken by best fit; None is the order of the rows.

    Raises:
        DataError: a row is longer than a sequence.
    """
    import numpy as np

    sizes = np.asarray(lengths, dtype=np.int64)
    _require_room(sizes, capacity)
    in_order = _next_fit(sizes, capacity)
    bin_of_row = in_order
    if strategy == "binpack":
        fitted = np.empty_like(sizes)
        mix = np.arange(len(sizes)) if mix is None else mix
        fitted[mix] = _best_fit(sizes[mix], capacity)
        # There are lengths in an order so lucky that best fit needs one sequence more.
        if _num_bins(fitted) <= _num_bins(in_order):
            bin_of_row = fitted
    return Packing(bin_of_row, _num_bins(bin_of_row), int(sizes.sum()), capacity)


def _require_room(sizes: "np.ndarray", capacity: int) -> None:
    longest = int(sizes.max(initial=0))
    if longest <= capacity:
        return
    raise DataError(
        f"{int((sizes > capacity).sum())} of {len(sizes)} rows don't fit into a packed sequence, "
        "and rows are kept whole",
        where="train.packing_length",
        found=f"a row of {longest} tokens",
        expected=f"at most {capacity} tokens",
        do="raise train.packing_length, or limit the rows with template.max_length",
    )


def _num_bins(bin_of_row: "np.ndarray") -> int:
    return int(bin_of_row.max(initial=-1)) + 1


def _next_fit(sizes: "np.ndarray", capacity: int) -> "np.ndarray":
    """Return the bin of each row when a bin is closed by the first row that does not fit."""
    import numpy as np

    ends = np.cumsum(sizes)
    starts = [0]
    filled = 0
    while (start := int(np.searchsorted(ends, filled + capacity, side="right"))) < len(sizes):
        starts.append(start)
        filled = int(ends[start - 1])
    first = np.zeros(len(sizes), dtype=np.int64)
    first[starts[1:]] = 1
    return np.cumsum(first)


def _best_fit(sizes: "np.ndarray", capacity: int) -> "np.ndarray":
    """Return the bin of each row, longest row first, each into the fullest bin that has room.

    A bin that takes a row becomes the fullest, so it takes further rows of that length as long as
    they fit; all bins with the same room left do the same. Whole groups of bins and rows are dealt
    with at once, which makes the work grow with the number of different lengths, not of rows.
    """
    import numpy as np

    bin_of_row = np.empty(len(sizes), dtype=np.int64)
    rows_by_length = np.argsort(-sizes, kind="stable")
    kinds, starts = np.unique(-sizes[rows_by_length], return_index=True)
    open_bins: dict[int, list[np.ndarray]] = {}  # room left -> bins
    rooms: list[int] = []  # keys of open_bins, rising
    num_bins = 0

    def put_back(room: int, bins: "np.ndarray") -> None:
        if room == 0 or len(bins) == 0:
            return
        if room not in open_bins:
            insort(rooms, room)
            open_bins[room] = []
        open_bins[room].append(bins)

    for length, rows in zip((-kinds).tolist(), np.split(rows_by_length, starts[1:]), strict=True):
        length = max(length, 1)
        while len(rows):
            place = bisect_left(rooms, length)
            if place < len(rooms):
                room = rooms.pop(place)
                bins = np.concatenate(open_bins.pop(room))
            else:
                room = capacity
                bins = np.arange(num_bins, num_bins - (-len(rows) // (capacity // length)))
                num_bins += len(bins)
            each = room // length
            taken = min(len(rows), each * len(bins))
            bin_of_row[rows[:taken]] = np.repeat(bins, each)[:taken]
            full, rest = divmod(taken, each)
            put_back(room - each * length, bins[:full])
            if rest:
                put_back(room - rest * length, bins[full : full + 1])
            put_back(room, bins[full + (rest > 0) :])
            rows = rows[taken:]
    return bin_of_row
