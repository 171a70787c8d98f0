"""From source files to a dataset folder, with the fate of every row accounted for.

First half, chunk by chunk and in as many processes as there are: read, normalise, quarantine what
has no standard form, keep the rest in shards on disk. Second half, on the rows' digests alone: drop
exact copies within a role; choose the evaluated rows (test, then val); drop training rows equal to
one of them, so evaluation stays uncontaminated; sample and split each training source; join, mix
and shuffle. Then the splits are gathered from the shards. Memory holds a few shards and some 50
bytes a row, however long the rows are.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.data.columns import joined_kinds
from swiftcore.data.dataset import write_split
from swiftcore.data.pool import Pool
from swiftcore.data.quarantine import QuarantineFile
from swiftcore.data.readers.chunks import file_chunks
from swiftcore.data.report import IngestReport, SourceCounts
from swiftcore.data.shards import (
    ColumnNews,
    Preparation,
    Shard,
    ShardedRows,
    ShardTask,
    prepare_chunk,
)
from swiftcore.data.sources.local import SourceFile, source_files
from swiftcore.data.splits import Selection, Source, content_numbers
from swiftcore.errors import DataError, UsageError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import DataSection

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 8 * 2**20
_NUM_REASONS = 20


def build_dataset(
    section: DataSection,
    out_dir: Path,
    *,
    work_dir: Path | None = None,
    pool: Pool | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Write `train.parquet`, `val.parquet`, `test.parquet`, the quarantine, report and card.

    The same section and the same bytes in the sources make the same bytes in the parquet files,
    however many processes work.

    Args:
        section: the recipe's data section.
        out_dir: folder for the dataset.
        work_dir: folder for the shards, about as large as the sources; removed afterwards.
            Default: one inside `out_dir`.
        pool: who prepares the chunks; default: this process.
        progress: told how far the work is.

    Raises:
        DataError: a source is missing, empty or damaged, too many rows are bad, or no training
            row is left. `quarantine.jsonl` is complete in `out_dir` whenever rows were read.
        UsageError: entries or settings that have no meaning.
        EnvironmentMissing: an entry names a source that can't be reached here.
    """
    _check_section(section)
    out_dir.mkdir(parents=True, exist_ok=True)
    work_dir = work_dir or out_dir / ".shards"
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    try:
        return _Ingest(section, out_dir, work_dir, pool or Pool(), progress or Silent()).run()
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


class _Ingest:
    """One ingest under way."""

    def __init__(
        self, section: DataSection, out_dir: Path, work_dir: Path, pool: Pool, progress: Progress
    ) -> None:
        self._section = section
        self._out_dir = out_dir
        self._work_dir = work_dir
        self._pool = pool
        self._progress = progress
        self._files = source_files(section)
        self._columns = ColumnNews()
        self._quarantine = QuarantineFile(out_dir / "quarantine.jsonl")

    def run(self) -> IngestReport:
        import numpy as np

        with self._quarantine:
            shards = self._read_all()
        sources = _sources(self._files, shards)
        self._check_columns()
        self._check_quarantine(sources)
        contents = content_numbers(b"".join(shard.digests for shard in shards))
        splits = Selection(sources, contents, self._section).splits()
        if not len(splits["train"]) and self._section.split_dataset_ratio < 1:
            raise self._nothing_to_train_on(sources)
        rows = ShardedRows(shards, joined_kinds(shard.kinds for shard in shards))
        sizes = np.frombuffer(b"".join(shard.sizes.tobytes() for shard in shards), dtype=np.int64)
        answered = np.frombuffer(b"".join(shard.answered for shard in shards), dtype=bool)
        report = self._report(sources, splits, answered)
        report.check()
        columns = Counter[str]()
        for split in report.splits:
            columns += write_split(rows, splits[split], sizes, self._out_dir / f"{split}.parquet")
        report.columns = dict(sorted(columns.items()))
        report.write(self._out_dir)
        total = report.total("rows")
        self._progress.update(total, total, _summary(report))
        return report

    def _read_all(self) -> list[Shard]:
        """Prepare every chunk of every file; return all shards in reading order."""
        tasks = self._tasks()
        total = sum(task.chunk.num_bytes for task in tasks)
        shards: list[Shard] = []
        done_bytes = done_rows = 0
        for task, made in zip(tasks, self._prepared(tasks, total), strict=True):
            shards += made
            for shard in made:
                self._columns.add(shard.columns)
                self._quarantine.add(shard.quarantine, shard.bad)
                shard.quarantine.clear()
                if self._section.strict and shard.bad:
                    raise _bad_row(*shard.bad[0])
            done_bytes += task.chunk.num_bytes
            done_rows += sum(shard.num_rows for shard in made)
            self._progress.update(done_bytes, total + 1, f"{done_rows:,} rows read")
        return shards

    def _tasks(self) -> list[ShardTask]:
        section = self._section
        preparation = Preparation(section.columns, section.remove_unused_columns, section.strict)
        chunks = [
            (number, chunk)
            for number, file in enumerate(self._files)
            for chunk in file_chunks(file.path, file.name, CHUNK_BYTES)
        ]
        return [
            ShardTask(chunk, source, self._work_dir, number, preparation)
            for number, (source, chunk) in enumerate(chunks)
        ]

    def _prepared(self, tasks: Sequence[ShardTask], total: int) -> Iterator[list[Shard]]:
        if len(tasks) > 1 or self._pool.ray_address is not None:
            return self._pool.map(prepare_chunk, tasks)
        # A single chunk (a large .gz, say) is worked on here, where it can tell how far it is.
        return (prepare_chunk(task, self._tell_rows) for task in tasks)

    def _tell_rows(self, rows: int) -> None:
        self._progress.update(rows, None, f"{rows:,} rows read")

    def _check_columns(self) -> None:
        wanted = {name.lower() for name in self._section.columns or {}}
        missing = sorted(wanted - self._columns.renamed)
        if missing:
            raise UsageError(
                "data.columns renames a column that no row has",
                where="data.columns",
                found=", ".join(missing),
                expected="a column of the sources: " + ", ".join(sorted(self._columns.seen)[:20]),
                do="correct the name, or remove it",
            )

    def _check_quarantine(self, sources: Sequence[Source]) -> None:
        total, bad = Counter[str](), Counter[str]()
        for source in sources:
            counts = source.counts
            total[counts.role] += counts.rows
            bad[counts.role] += counts.quarantined
            if counts.quarantined == counts.rows:
                problem = f"all {counts.rows:,} rows are bad"
                raise _too_many_bad(counts.entry, problem, self._quarantine)
        max_share = self._section.max_quarantine_share
        for role, rows in total.items():
            if bad[role] > max_share * rows:
                problem = f"{bad[role]:,} of {rows:,} {role} rows are bad ({bad[role] / rows:.1%})"
                raise _too_many_bad(f"{role} rows", problem, self._quarantine, max_share)

    def _nothing_to_train_on(self, sources: Sequence[Source]) -> DataError:
        return DataError(
            "no training row is left",
            where=", ".join(self._section.dataset),
            found=f"{sum(s.counts.held_out for s in sources)} rows equal to evaluated rows",
            do="give training rows that are not in val_dataset or test_dataset",
        )

    def _report(
        self, sources: Sequence[Source], splits: "dict[str, np.ndarray]", answered: "np.ndarray"
    ) -> IngestReport:
        written = {split: rows for split, rows in splits.items() if len(rows) or split == "train"}
        return IngestReport(
            splits={split: len(rows) for split, rows in written.items()},
            sources=[source.counts for source in sources],
            files=[file.name for file in self._files],
            unused_columns=dict(sorted(self._columns.unused.items())),
            quarantine_reasons=dict(self._quarantine.reasons.most_common(_NUM_REASONS)),
            notes=[
                *_notes(sources, self._columns.clashes),
                *_answerless({split: answered[rows] for split, rows in written.items()}),
            ],
        )


def _check_section(section: DataSection) -> None:
    if section.split_dataset_ratio > 0 and section.val_dataset:
        raise UsageError(
            "validation rows are named twice",
            where="data.split_dataset_ratio and data.val_dataset",
            found=f"{section.split_dataset_ratio} and {', '.join(section.val_dataset)}",
            expected="one of the two",
            do="set data.split_dataset_ratio to 0, or remove data.val_dataset",
        )
    if section.split_dataset_ratio > 0 and section.streaming:
        raise UsageError(
            "a stream has no length that a share could be split off from",
            where="data.split_dataset_ratio and data.streaming",
            found=section.split_dataset_ratio,
            expected="0",
            do="name data.val_dataset, or set data.streaming to false",
        )


def _sources(files: Sequence[SourceFile], shards: Sequence[Shard]) -> list[Source]:
    """Gather files and shards into one source for each entry of the recipe."""
    import numpy as np

    sources: list[Source] = []
    of_file: list[Source] = []
    for file in files:
        last = sources[-1] if sources else None
        # Identity, not equality: the same entry may be listed twice.
        if last is None or last.files[0].spec is not file.spec:
            nothing = np.empty(0, dtype=np.int64)
            last = Source([], SourceCounts(file.spec.text, file.role, []), nothing)
            sources.append(last)
        last.files.append(file)
        last.counts.files.append(file.name)
        of_file.append(last)
    place = 0
    for shard in shards:
        source = of_file[shard.source]
        source.counts.rows += shard.num_rows
        source.counts.quarantined += len(shard.bad)
        places = np.arange(place, place + shard.num_good, dtype=np.int64)
        source.rows = np.concatenate([source.rows, places])
        place += shard.num_good
    return sources


def _bad_row(reason: str, place: str) -> DataError:
    return DataError(
        "a row has no standard form, and data.strict is on",
        where=place,
        found=reason,
        do="mend the row, or set data.strict to false to set bad rows aside",
    )


def _too_many_bad(
    where: str, problem: str, quarantine: QuarantineFile, max_share: float | None = None
) -> DataError:
    allowed = "" if max_share is None else ", or raise data.max_quarantine_share"
    return DataError(
        problem,
        where=where,
        found="\n".join(quarantine.examples()),
        expected=None if max_share is None else f"at most {max_share:.1%}",
        do=f"look into {quarantine.path}, mend the source or set data.columns{allowed}",
    )


def _notes(sources: Sequence[Source], clashes: dict[str, list[str]]) -> Iterator[str]:
    for target, names in sorted(clashes.items()):
        yield (
            f"Columns {', '.join(names)} could each be the {target}, so none was taken for it; "
            "say which with data.columns."
        )
    for source in sources:
        counts = source.counts
        if counts.held_out:
            yield (
                f"{counts.held_out:,} rows of {counts.entry} equal evaluated rows; they were "
                f"dropped from {counts.role}."
            )
        if not counts.used:
            yield f"{counts.entry} gives no row: all of them are duplicates or evaluated rows."


def _answerless(answered: "dict[str, np.ndarray]") -> Iterator[str]:
    for split, flags in answered.items():
        num_rows = len(flags) - int(flags.sum())
        if num_rows:
            yield (
                f"{num_rows:,} of {len(flags):,} {split} rows hold a prompt without an answer; "
                "supervised training learns nothing from them."
            )


def _summary(report: IngestReport) -> str:
    splits = ", ".join(f"{rows:,} {split}" for split, rows in report.splits.items())
    return f"{report.total('rows'):,} rows read: {splits}, {report.total('quarantined'):,} bad"
