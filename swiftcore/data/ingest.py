"""From source files to a dataset folder, with the fate of every row accounted for.

Order: read and normalise every source, quarantine what has no standard form; drop exact copies
within a role; choose the evaluated rows (test, then val); drop training rows equal to one of them,
so evaluation stays uncontaminated; sample and split each training source; join and shuffle; write.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from swiftcore.data.dataset import StoredRow, write_split
from swiftcore.data.quarantine import QuarantineFile, RejectedRow
from swiftcore.data.readers.files import read_rows
from swiftcore.data.report import IngestReport, SourceCounts
from swiftcore.data.rows.formats import RowNormalizer
from swiftcore.data.rows.messages import json_text
from swiftcore.data.sources.local import source_files
from swiftcore.data.splits import GoodRow, Source, choose_splits
from swiftcore.errors import DataError, UsageError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import DataSection

_ROWS_BETWEEN_NEWS = 1000
_NUM_REASONS = 20


def build_dataset(
    section: DataSection, out_dir: Path, *, progress: Progress | None = None
) -> IngestReport:
    """Write `train.parquet`, `val.parquet`, `test.parquet`, the quarantine, report and card.

    The same section and the same bytes in the sources make the same bytes in the parquet files.

    Raises:
        DataError: a source is missing, empty or damaged, too many rows are bad, or no training
            row is left. `quarantine.jsonl` is complete in `out_dir` whenever rows were read.
        UsageError: entries or settings that have no meaning.
        EnvironmentMissing: an entry names a dataset on a hub.
    """
    _check_section(section)
    progress = progress or Silent()
    normalizer = RowNormalizer(section.columns, section.remove_unused_columns)
    sources = _sources(section)
    out_dir.mkdir(parents=True, exist_ok=True)
    with QuarantineFile(out_dir / "quarantine.jsonl") as quarantine:
        _read_all(sources, normalizer, quarantine, section.strict, progress)
    _check_columns(normalizer)
    _check_quarantine(sources, quarantine, section.max_quarantine_share)
    splits = choose_splits(sources, section)
    if not splits["train"] and section.split_dataset_ratio < 1:
        raise DataError(
            "no training row is left",
            where=", ".join(section.dataset),
            found=f"{sum(s.counts.held_out for s in sources)} rows equal to evaluated rows",
            do="give training rows that are not in val_dataset or test_dataset",
        )
    report = _report(sources, splits, normalizer, quarantine)
    report.check()
    for split, rows in splits.items():
        if rows or split == "train":
            write_split([row.stored for row in rows], out_dir / f"{split}.parquet")
    report.write(out_dir)
    progress.update(report.total("rows"), report.total("rows"), _summary(report))
    return report


def _check_section(section: DataSection) -> None:
    if section.split_dataset_ratio > 0 and section.val_dataset:
        raise UsageError(
            "validation rows are named twice",
            where="data.split_dataset_ratio and data.val_dataset",
            found=f"{section.split_dataset_ratio} and {', '.join(section.val_dataset)}",
            expected="one of the two",
            do="set data.split_dataset_ratio to 0, or remove data.val_dataset",
        )


def _sources(section: DataSection) -> list[Source]:
    sources: list[Source] = []
    for file in source_files(section):
        last = sources[-1] if sources else None
        # Identity, not equality: the same entry may be listed twice.
        if last is None or last.files[0].spec is not file.spec:
            last = Source([], SourceCounts(file.spec.text, file.role, []))
            sources.append(last)
        last.files.append(file)
        last.counts.files.append(file.name)
    return sources


def _read_all(
    sources: list[Source],
    normalizer: RowNormalizer,
    quarantine: QuarantineFile,
    strict: bool,
    progress: Progress,
) -> None:
    num_files = num_rows = 0
    for source in sources:
        for file in source.files:
            for raw in read_rows(file.path, file.name):
                num_rows += 1
                if num_rows % _ROWS_BETWEEN_NEWS == 0:
                    progress.update(num_rows, None, f"{num_rows:,} rows read, now {file.name}")
                source.counts.rows += 1
                try:
                    if raw.problem is not None:
                        raise RejectedRow(raw.problem)
                    row = normalizer.standard_row(raw.row)
                    digest = content_digest(row)
                except RejectedRow as err:
                    parsed = raw.problem is None
                    quarantine.add(file.name, raw.line, err.message, raw.row, parsed)
                    source.counts.quarantined += 1
                    if strict:
                        raise _bad_row(file.name, raw.line, err) from err
                else:
                    source.rows.append(GoodRow(StoredRow(row, num_files, raw.line), digest))
            num_files += 1


def content_digest(row: dict[str, object]) -> bytes:
    """Return the sha256 of a standard row: equal for equal content, whatever the key order.

    Raises:
        RejectedRow: a column has no JSON form.
    """
    parts = [f"{name}={json_text(row[name], name)}" for name in sorted(row)]
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _bad_row(name: str, line: int, err: RejectedRow) -> DataError:
    return DataError(
        "a row has no standard form, and data.strict is on",
        where=f"{name}:{line}",
        found=err.message,
        do="mend the row, or set data.strict to false to set bad rows aside",
    )


def _check_quarantine(sources: list[Source], quarantine: QuarantineFile, max_share: float) -> None:
    total, bad = Counter[str](), Counter[str]()
    for source in sources:
        total[source.counts.role] += source.counts.rows
        bad[source.counts.role] += source.counts.quarantined
        if source.counts.quarantined == source.counts.rows:
            problem = f"all {source.counts.rows:,} rows are bad"
            raise _too_many_bad(source.counts.entry, problem, quarantine)
    for role, rows in total.items():
        if bad[role] > max_share * rows:
            problem = f"{bad[role]:,} of {rows:,} {role} rows are bad ({bad[role] / rows:.1%})"
            raise _too_many_bad(f"{role} rows", problem, quarantine, max_share)


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


def _check_columns(normalizer: RowNormalizer) -> None:
    missing = normalizer.missing_columns()
    if missing:
        raise UsageError(
            "data.columns renames a column that no row has",
            where="data.columns",
            found=", ".join(missing),
            expected="a column of the sources: " + ", ".join(normalizer.seen_columns()[:20]),
            do="correct the name, or remove it",
        )


def _report(
    sources: list[Source],
    splits: dict[str, list[GoodRow]],
    normalizer: RowNormalizer,
    quarantine: QuarantineFile,
) -> IngestReport:
    columns = Counter(name for rows in splits.values() for row in rows for name in row.stored.row)
    return IngestReport(
        splits={split: len(rows) for split, rows in splits.items() if rows or split == "train"},
        sources=[source.counts for source in sources],
        files=[file.name for source in sources for file in source.files],
        columns=dict(sorted(columns.items())),
        unused_columns=dict(sorted(normalizer.unused_columns.items())),
        quarantine_reasons=dict(quarantine.reasons.most_common(_NUM_REASONS)),
        notes=[*_notes(sources, normalizer), *_answerless(splits)],
    )


def _notes(sources: list[Source], normalizer: RowNormalizer) -> Iterator[str]:
    for target, names in sorted(normalizer.clashes.items()):
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


def _answerless(splits: dict[str, list[GoodRow]]) -> Iterator[str]:
    for split, rows in splits.items():
        num_rows = sum(not _has_answer(row.stored.row) for row in rows)
        if num_rows:
            yield (
                f"{num_rows:,} of {len(rows):,} {split} rows hold a prompt without an answer; "
                "supervised training learns nothing from them."
            )


def _has_answer(row: dict[str, object]) -> bool:
    messages = row["messages"]
    return isinstance(messages, list) and any(
        message["role"] in ("assistant", "tool_call") for message in messages
    )


def _summary(report: IngestReport) -> str:
    splits = ", ".join(f"{rows:,} {split}" for split, rows in report.splits.items())
    return f"{report.total('rows'):,} rows read: {splits}, {report.total('quarantined'):,} bad"
