"""Which good rows end up in which split: duplicates, contamination, sampling, splitting, order."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from swiftcore.data.dataset import StoredRow
from swiftcore.data.report import SourceCounts
from swiftcore.data.sampling import sample_indices, shuffled
from swiftcore.data.sources.local import SourceFile
from swiftcore.errors import UsageError
from swiftcore.recipe.sections import DataSection


@dataclass(frozen=True, slots=True)
class GoodRow:
    """A standard row while it is on its way into a split."""

    stored: StoredRow
    digest: bytes


@dataclass
class Source:
    """One dataset entry while it is ingested: the good rows that are left, and its counts."""

    files: list[SourceFile]
    counts: SourceCounts
    rows: list[GoodRow] = field(default_factory=list)

    def drop(self, digests: set[bytes]) -> int:
        """Remove rows with one of these contents; return how many."""
        before = len(self.rows)
        self.rows = [row for row in self.rows if row.digest not in digests]
        return before - len(self.rows)


def choose_splits(sources: list[Source], section: DataSection) -> dict[str, list[GoodRow]]:
    """Choose the rows of each split, and count the fate of every good row."""
    by_role = {
        role: [s for s in sources if s.counts.role == role] for role in ("train", "val", "test")
    }
    if section.deduplicate:
        for group in by_role.values():
            _drop_duplicates(group)
    test = [row for source in by_role["test"] for row in _take(source, "test", False, section)]
    _drop_held_out(by_role["val"], test)
    shuffle_val = section.val_dataset_shuffle
    val = [row for source in by_role["val"] for row in _take(source, "val", shuffle_val, section)]
    _drop_held_out(by_role["train"], [*test, *val])
    train: list[GoodRow] = []
    chosen = [_split_source(source, section) for source in by_role["train"]]
    val += [row for _, split_off in chosen for row in split_off]
    # Without deduplication a copy of a row that was split off may still be among the others.
    held_out = {row.digest for _, split_off in chosen for row in split_off}
    for source, (rows, split_off) in zip(by_role["train"], chosen, strict=True):
        train += _account(source, rows, split_off, held_out)
    if section.dataset_shuffle:
        train = _shuffle(train, section.data_seed, "train")
    if shuffle_val:
        val = _shuffle(val, section.data_seed, "val")
    return {"train": train, "val": val, "test": test}


def _drop_duplicates(sources: Iterable[Source]) -> None:
    seen: set[bytes] = set()
    for source in sources:
        first: list[GoodRow] = []
        for row in source.rows:
            if row.digest not in seen:
                seen.add(row.digest)
                first.append(row)
        source.counts.duplicates += len(source.rows) - len(first)
        source.rows = first


def _drop_held_out(sources: Iterable[Source], evaluated: Iterable[GoodRow]) -> None:
    digests = {row.digest for row in evaluated}
    for source in sources:
        source.counts.held_out += source.drop(digests)


def _take(source: Source, split: str, shuffle: bool, section: DataSection) -> list[GoodRow]:
    """Return the rows an evaluated source gives to its split, and count them."""
    rows, _ = _sampled(source, 0.0, shuffle, section.data_seed)
    _count(source, {split: rows})
    return rows


def _split_source(source: Source, section: DataSection) -> tuple[list[GoodRow], list[GoodRow]]:
    return _sampled(source, section.split_dataset_ratio, section.dataset_shuffle, section.data_seed)


def _sampled(
    source: Source, ratio: float, shuffle: bool, seed: int
) -> tuple[list[GoodRow], list[GoodRow]]:
    if not source.rows:
        return [], []
    spec = source.files[0].spec
    try:
        train, val = sample_indices(len(source.rows), spec.sample, ratio, shuffle, seed)
    except UsageError as err:
        raise UsageError(
            err.message,
            where=source.counts.entry,
            found=err.found,
            expected=err.expected,
            do=err.do,
        ) from err
    return [source.rows[i] for i in train], [source.rows[i] for i in val]


def _account(
    source: Source, rows: list[GoodRow], split_off: list[GoodRow], held_out: set[bytes]
) -> list[GoodRow]:
    """Count a training source's rows after its split; return the ones that may be trained on."""
    kept = [row for row in rows if row.digest not in held_out]
    dropped = {id(row) for row in rows} - {id(row) for row in kept}
    source.counts.held_out += len(dropped)
    source.rows = [row for row in source.rows if id(row) not in dropped]
    _count(source, {"train": kept, "val": split_off})
    return kept


def _count(source: Source, splits: dict[str, list[GoodRow]]) -> None:
    written = sum(map(len, splits.values()))
    counts = source.counts
    counts.used = len({id(row) for rows in splits.values() for row in rows})
    counts.repeated = written - counts.used
    counts.not_sampled = len(source.rows) - counts.used
    counts.written = {split: len(rows) for split, rows in splits.items() if rows}


def _shuffle(rows: list[GoodRow], seed: int, split: str) -> list[GoodRow]:
    # A stream of its own: the order must not depend on how many numbers sampling drew.
    order = shuffled(range(len(rows)), random.Random(f"{seed}/{split}"))
    return [rows[i] for i in order]
