"""What an ingest did, in numbers that add up, as `report.json` and as a page for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from swiftcore.data.sources.local import Role
from swiftcore.errors import SwiftError

# What can become of a row that was read; each has exactly one of these fates.
FATES = (
    *("quarantined", "filtered", "private", "duplicates", "near_duplicates", "contaminated"),
    *("held_out", "not_sampled", "used"),
)
_ALWAYS_SHOWN = ("quarantined", "duplicates", "held_out", "not_sampled", "used")


@dataclass
class SourceCounts:
    """Fate of the rows of one dataset entry.

    Every source row is in exactly one of the counts from quarantined to used.

    Args:
        entry: the entry as the recipe writes it.
        role: train, val or test.
        files: names of its files.
        rows: rows read.
        quarantined: rows without a standard form.
        filtered: rows outside the limits of length or language.
        private: rows dropped for secrets or personal data.
        duplicates: rows equal to an earlier row of the same role.
        near_duplicates: training rows nearly equal to an earlier one.
        contaminated: training rows dropped because they hold evaluated text.
        held_out: rows dropped because they equal a row that is evaluated.
        not_sampled: good rows that `#count` left out.
        used: distinct source rows that are in a split.
        repeated: extra copies, where `#count` asks for more rows than there are.
        written: rows a split got from here.
    """

    entry: str
    role: Role
    files: list[str]
    rows: int = 0
    quarantined: int = 0
    filtered: int = 0
    private: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    contaminated: int = 0
    held_out: int = 0
    not_sampled: int = 0
    used: int = 0
    repeated: int = 0
    written: dict[str, int] = field(default_factory=dict)

    def add_rows(self, rows: int, fates: Mapping[str, int]) -> None:
        """Count rows that were read, and those of them that were dropped on the way."""
        self.rows += rows
        for fate, count in fates.items():
            setattr(self, fate, getattr(self, fate) + count)

    def check(self) -> None:
        """Raise when a row is lost or counted twice; that would be our bug."""
        fates = sum(getattr(self, fate) for fate in FATES)
        written = sum(self.written.values())
        if fates != self.rows or written != self.used + self.repeated:
            raise SwiftError(
                "the row counts of an ingest do not add up",
                where=self.entry,
                found=asdict(self),
                expected=f"rows = {' + '.join(FATES)}, and written = used + repeated",
                do="report this as a bug, with the recipe",
            )


@dataclass
class IngestReport:
    """Outcome of one ingest.

    Args:
        splits: rows of each split that was written.
        sources: fate of the rows of each dataset entry.
        files: all source files in reading order; `__source` in parquet is a place in this list.
        columns: columns of the standard rows, with the number of rows that have each.
        unused_columns: columns that were dropped, with the number of rows that had each.
        quarantine_reasons: the most frequent reasons for dropping rows, with their number of rows.
        findings: secrets and personal data that were found, with the number of rows of each kind.
        contamination: ways in which training rows hold evaluated text, with the number of rows.
        provenance: where files came from, as far as more is known than their path.
        licence: licence of the data.
        notes: what a careful reader should know.
    """

    splits: dict[str, int] = field(default_factory=dict)
    sources: list[SourceCounts] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    columns: dict[str, int] = field(default_factory=dict)
    unused_columns: dict[str, int] = field(default_factory=dict)
    quarantine_reasons: dict[str, int] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)
    contamination: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, dict[str, str]] = field(default_factory=dict)
    licence: str | None = None
    notes: list[str] = field(default_factory=list)

    def total(self, name: str) -> int:
        """Return the sum of one count over all sources."""
        return sum(getattr(source, name) for source in self.sources)

    def check(self) -> None:
        """Raise when counts do not add up, within a source or over the splits."""
        for source in self.sources:
            source.check()
        for split, rows in self.splits.items():
            written = sum(source.written.get(split, 0) for source in self.sources)
            if written != rows:
                raise SwiftError(
                    "the rows of a split do not add up",
                    where=split,
                    found=f"{rows} rows in the file",
                    expected=f"{written} rows from its sources",
                    do="report this as a bug, with the recipe",
                )

    def as_dict(self) -> dict[str, object]:
        """Return the report in JSON types."""
        return {"schema": 1, **asdict(self)}

    def write(self, out_dir: Path) -> None:
        """Write `report.json` and `card.md`."""
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (out_dir / "report.json").write_text(text + "\n", encoding="utf-8")
        (out_dir / "card.md").write_text(self.card(), encoding="utf-8")

    def card(self) -> str:
        """Return the report as a Markdown page."""
        splits = ", ".join(f"{rows:,} {split}" for split, rows in self.splits.items())
        lines = ["# Dataset", "", f"Rows: {splits}.", ""]
        fates = [fate for fate in FATES if fate in _ALWAYS_SHOWN or self.total(fate)]
        counts = ("rows", *fates, "repeated")
        header = ("source", "role", *(name.replace("_", " ") for name in counts))
        rows = [
            (_cell(source.entry), source.role, *(getattr(source, name) for name in counts))
            for source in self.sources
        ]
        lines += _table(header, rows)
        lines += [
            "",
            "Each row read is in exactly one of the columns from quarantined to used. Held out: "
            "dropped because an evaluated row is equal.",
        ]
        for title, counts in (
            ("Why rows are in quarantine.jsonl", self.quarantine_reasons),
            ("Secrets and personal data", self.findings),
            ("Evaluated text in training rows", self.contamination),
            ("Columns", self.columns),
            ("Columns that were dropped", self.unused_columns),
        ):
            if counts:
                pairs = [(_cell(name), count) for name, count in counts.items()]
                lines += ["", f"## {title}", "", *_table(("", "rows"), pairs)]
        if self.notes:
            lines += ["", "## Notes", "", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"


def _table(header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
