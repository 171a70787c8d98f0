"""Which good rows end up in which split: duplicates, contamination, sampling, splitting, order.

Rows are numbered in reading order, and everything here works on arrays of these numbers; the rows
themselves stay on disk.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swiftcore.data.cleaning.near_duplicates import near_duplicate_groups
from swiftcore.data.columns import DIGEST_BYTES
from swiftcore.data.mixing import Mixed, appended, interleaved
from swiftcore.data.report import SourceCounts
from swiftcore.data.sampling import sample_indices, shuffled_in_buffer, shuffled_places
from swiftcore.data.sources.local import SourceFile
from swiftcore.errors import UsageError
from swiftcore.recipe.sections import DataSection

if TYPE_CHECKING:
    import numpy as np

    Places = np.ndarray

SPLITS = ("train", "val", "test")


@dataclass
class Source:
    """One dataset entry while it is ingested: the places of the good rows left, and its counts."""

    files: list[SourceFile]
    counts: SourceCounts
    rows: "Places"


def content_numbers(digests: bytes) -> "Places":
    """Return for each row the place of the first row with the same digest."""
    import numpy as np

    halves = np.frombuffer(digests, dtype="<u8").reshape(-1, DIGEST_BYTES // 8)
    order = np.lexsort(halves.T)
    ordered = halves[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    # lexsort is stable, so the first of each run of equals is the earliest row.
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = order[new][np.cumsum(new) - 1]
    return numbers


class Selection:
    """Chooses the rows of each split, and counts the fate of every good row.

    Args:
        sources: every dataset entry, in reading order; their counts are filled in.
        contents: what `content_numbers` returns for all rows.
        section: the recipe's wishes.
        signatures: MinHash signatures of all rows, when near duplicates are to be dropped.
        leaking: told the training rows and those split off from them, returns the training rows to
            drop because they hold text of the others; None when nobody asks for that.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        contents: "Places",
        section: DataSection,
        signatures: "np.ndarray | None" = None,
        leaking: "Callable[[Places, Places], Places] | None" = None,
    ) -> None:
        self._roles = {role: [s for s in sources if s.counts.role == role] for role in SPLITS}
        self._contents = contents
        self._section = section
        self._signatures = signatures
        self._leaking = leaking
        self.near_duplicates: list[tuple[int, int]] = []

    def splits(self) -> dict[str, "Places"]:
        """Return the places of the rows of each split, in the split's order.

        Raises:
            UsageError: a count or share can't be had from an entry's rows.
        """
        import numpy as np

        section = self._section
        if section.deduplicate:
            for group in self._roles.values():
                self._drop_duplicates(group)
        test = _joined([self._take(source, "test", False) for source in self._roles["test"]])
        self._drop_held_out(self._roles["val"], test)
        shuffle_val = section.val_dataset_shuffle
        taken = [self._take(source, "val", shuffle_val) for source in self._roles["val"]]
        self._drop_held_out(self._roles["train"], _joined([test, *taken]))
        self._drop_near_duplicates(self._roles["train"])
        chosen = [self._split(source) for source in self._roles["train"]]
        split_off = _joined([val for _, val in chosen])
        # Without deduplication a copy of a row that was split off may still be among the others.
        kept = [self._without(rows, split_off) for rows, _ in chosen]
        for source, (rows, _), left in zip(self._roles["train"], chosen, kept, strict=True):
            dropped = np.setdiff1d(rows, left)
            source.counts.held_out += len(dropped)
            source.rows = np.setdiff1d(source.rows, dropped, assume_unique=True)
        kept = self._without_leaks(kept, split_off)
        mixed = self._mixed(kept)
        for source, (_, val), given in zip(self._roles["train"], chosen, mixed.parts, strict=True):
            _count(source, {"train": given, "val": val})
        train, val = mixed.rows, _joined([*taken, split_off])
        if section.dataset_shuffle:
            train = self._shuffled(train, "train")
        if shuffle_val:
            val = self._shuffled(val, "val")
        return {"train": train, "val": val, "test": test}

    def _drop_duplicates(self, group: Sequence[Source]) -> None:
        import numpy as np

        rows = _joined([source.rows for source in group])
        _, first = np.unique(self._contents[rows], return_index=True)
        kept = rows[np.sort(first)]
        for source in group:
            left = source.rows[np.isin(source.rows, kept, assume_unique=True)]
            source.counts.duplicates += len(source.rows) - len(left)
            source.rows = left

    def _drop_held_out(self, group: Sequence[Source], evaluated: "Places") -> None:
        for source in group:
            left = self._without(source.rows, evaluated)
            source.counts.held_out += len(source.rows) - len(left)
            source.rows = left

    def _drop_near_duplicates(self, group: Sequence[Source]) -> None:
        """Drop rows like an earlier one, and remember in `near_duplicates` which pairs were met."""
        import numpy as np

        threshold = self._section.cleaning.near_duplicates
        if self._signatures is None or threshold is None:
            return
        rows = _joined([source.rows for source in group])
        like = near_duplicate_groups(self._signatures[rows], threshold)
        dropped = rows[like >= 0]
        self.near_duplicates = list(
            zip(dropped.tolist(), rows[like[like >= 0]].tolist(), strict=True)
        )
        for source in group:
            left = source.rows[~np.isin(source.rows, dropped, assume_unique=True)]
            source.counts.near_duplicates += len(source.rows) - len(left)
            source.rows = left

    def _without_leaks(self, kept: "list[Places]", split_off: "Places") -> "list[Places]":
        """Drop training rows with text of rows that were split off."""
        import numpy as np

        train = np.unique(_joined(kept))
        if self._leaking is None or not len(split_off) or not len(train):
            return kept
        dropped = self._leaking(train, split_off)
        for source in self._roles["train"]:
            left = source.rows[~np.isin(source.rows, dropped)]
            source.counts.contaminated += len(source.rows) - len(left)
            source.rows = left
        return [rows[~np.isin(rows, dropped)] for rows in kept]

    def _without(self, rows: "Places", others: "Places") -> "Places":
        """Return the rows whose content is not that of any of the others."""
        import numpy as np

        return rows[~np.isin(self._contents[rows], self._contents[others])]

    def _take(self, source: Source, split: str, shuffle: bool) -> "Places":
        """Return the rows an evaluated source gives to its split, and count them."""
        rows, _ = self._sampled(source, 0.0, shuffle)
        _count(source, {split: rows})
        return rows

    def _split(self, source: Source) -> tuple["Places", "Places"]:
        section = self._section
        return self._sampled(source, section.split_dataset_ratio, section.dataset_shuffle)

    def _sampled(self, source: Source, ratio: float, shuffle: bool) -> tuple["Places", "Places"]:
        import numpy as np

        rows, spec = source.rows, source.files[0].spec
        if not len(rows):
            return rows, rows
        if self._section.streaming:
            return rows[: spec.sample], rows[:0]
        if spec.sample is None and not ratio:
            return rows, rows[:0]
        try:
            train, val = sample_indices(
                len(rows), spec.sample, ratio, shuffle, self._section.data_seed
            )
        except UsageError as err:
            raise UsageError(
                err.message,
                where=source.counts.entry,
                found=err.found,
                expected=err.expected,
                do=err.do,
            ) from err
        return rows[np.asarray(train, dtype=np.int64)], rows[np.asarray(val, dtype=np.int64)]

    def _mixed(self, parts: list["Places"]) -> Mixed:
        section = self._section
        if section.interleave_prob is None:
            return appended(parts)
        return interleaved(
            parts, section.interleave_prob, section.stopping_strategy, section.data_seed
        )

    def _shuffled(self, rows: "Places", split: str) -> "Places":
        import numpy as np

        # A stream of its own: the order must not depend on how many numbers sampling drew.
        rng = random.Random(f"{self._section.data_seed}/{split}")
        if self._section.streaming:
            size = self._section.shuffle_buffer_size
            return np.asarray(shuffled_in_buffer(rows.tolist(), size, rng), dtype=np.int64)
        return rows[shuffled_places(len(rows), rng)]


def _joined(parts: Sequence["Places"]) -> "Places":
    import numpy as np

    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _count(source: Source, splits: dict[str, "Places"]) -> None:
    import numpy as np

    written = sum(map(len, splits.values()))
    counts = source.counts
    counts.used = len(np.unique(_joined(list(splits.values()))))
    counts.repeated = written - counts.used
    counts.not_sampled = len(source.rows) - counts.used
    counts.written = {split: len(rows) for split, rows in splits.items() if len(rows)}
