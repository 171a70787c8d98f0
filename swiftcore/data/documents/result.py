"""What an ingestion did: each file, each row that was left out, and sums that add up."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from swiftcore.data.documents.folders import SkippedFile
from swiftcore.data.documents.schemas import DatasetFormat
from swiftcore.errors import SwiftError

_NUM_SKIPPED_SHOWN = 5


@dataclass(slots=True)
class Counts:
    """How much of something became what.

    Args:
        source_rows: rows read from data files; documents have none.
        rejected: of these, rows without the wanted form; they are in the quarantine file.
        chunks: pieces that could become rows: chunks of texts, and conversations.
        rows: of these, the ones that were written.
        duplicates: of these, exact copies of a row written before.
        blank: of these, chunks of white space.
    """

    source_rows: int = 0
    rejected: int = 0
    chunks: int = 0
    rows: int = 0
    duplicates: int = 0
    blank: int = 0

    def add(self, other: "Counts") -> None:
        """Add the counts of another file."""
        for count in fields(self):
            setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))


@dataclass(slots=True)
class IngestedFile:
    """A file that was read.

    Args:
        name: as the report calls it.
        kind: kind of document, language, or `rows` for a data file.
        counts: what became of it.
        notes: what its reader noticed.
    """

    name: str
    kind: str
    counts: Counts = field(default_factory=Counts)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class IngestionResult:
    """The outcome of an ingestion; `<output>.report.json` holds the same.

    Args:
        format: form of the rows.
        output_path: the JSONL file.
        report_path: the report beside it.
        output_sha256: digest of the JSONL file, so that a report can't pass for another file's.
        quarantine_path: data rows without the wanted form; None when there are none.
        num_found: files and folders met; each is in `files` or in `skipped`.
        files: what was read.
        skipped: what was not, each with its reason.
        hf_sources: each hub dataset with the revision it was pinned to.
        hf_rows: rows read from hubs, among the source rows.
        rejected_reasons: the most frequent reasons of rejected rows, with row counts.
        unused_columns: columns of data rows that the format has no place for, with row counts.
    """

    format: DatasetFormat
    output_path: Path
    report_path: Path
    output_sha256: str = ""
    quarantine_path: Path | None = None
    num_found: int = 0
    files: list[IngestedFile] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    hf_sources: list[dict[str, str]] = field(default_factory=list)
    hf_rows: int = 0
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    unused_columns: dict[str, int] = field(default_factory=dict)

    @property
    def totals(self) -> Counts:
        """The sums over all files."""
        total = Counts()
        for file in self.files:
            total.add(file.counts)
        return total

    @property
    def rows(self) -> int:
        """Rows written."""
        return self.totals.rows

    @property
    def chunks(self) -> int:
        """Pieces that could become rows."""
        return self.totals.chunks

    @property
    def duplicates(self) -> int:
        """Exact copies that were dropped."""
        return self.totals.duplicates

    def check(self) -> None:
        """Raise when counts do not add up; that would be a bug of ours."""
        total = self.totals
        if self.num_found != len(self.files) + len(self.skipped):
            found = f"{len(self.files)} read, {len(self.skipped)} skipped of {self.num_found} files"
        elif total.chunks != total.rows + total.duplicates + total.blank:
            found = str(total)
        else:
            return
        raise SwiftError("the counts of an ingestion do not add up", found=found)

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON-ready fields, without the places of this machine."""
        return {
            "schema": 1,
            "format": str(self.format),
            "output": self.output_path.name,
            "output_sha256": self.output_sha256,
            "quarantine": None if self.quarantine_path is None else self.quarantine_path.name,
            "found": self.num_found,
            "read": len(self.files),
            "skipped": len(self.skipped),
            **asdict(self.totals),
            "hf_rows": self.hf_rows,
            "hf_sources": self.hf_sources,
            "rejected_reasons": self.rejected_reasons,
            "unused_columns": self.unused_columns,
            "files": [asdict(file) for file in self.files],
            "skipped_files": [asdict(file) for file in self.skipped],
        }

    def summary(self) -> str:
        """Return the outcome in a few lines for people."""
        total = self.totals
        lines = [
            f"{total.rows:,} rows in {self.output_path} "
            f"({total.chunks:,} chunks, {total.duplicates:,} duplicates, {total.blank:,} blank)",
            f"{len(self.files):,} of {self.num_found:,} files read, {len(self.skipped):,} skipped; "
            f"{total.source_rows:,} data rows, {total.rejected:,} rejected",
        ]
        lines += skipped_lines(self.skipped)
        if self.quarantine_path is not None:
            lines.append(f"rejected rows with their reasons: {self.quarantine_path}")
        return "\n".join([*lines, f"every file and reason: {self.report_path}"])


def skipped_lines(skipped: list[SkippedFile]) -> list[str]:
    """Return the first skipped files with their reasons, and how many more there are."""
    lines = [f"  {file.name}: {file.reason}" for file in skipped[:_NUM_SKIPPED_SHOWN]]
    more = len(skipped) - _NUM_SKIPPED_SHOWN
    return [*lines, f"  and {more:,} more"] if more > 0 else lines
