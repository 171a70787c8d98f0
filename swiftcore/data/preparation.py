"""What happens to one raw row: placeholders, the standard form, filters, privacy, contamination."""

import hashlib
import pickle
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from swiftcore.data.cleaning.contamination import ContaminationCounts, ContaminationIndex
from swiftcore.data.cleaning.filters import LanguageFilter, LengthFilter
from swiftcore.data.cleaning.language import can_detect
from swiftcore.data.cleaning.near_duplicates import row_signature
from swiftcore.data.cleaning.privacy import FindingCounts, PrivacyScanner
from swiftcore.data.cleaning.statistics import RowStatistics
from swiftcore.data.columns import EncodedRow, encode_row
from swiftcore.data.quarantine import QUARANTINED, RejectedRow
from swiftcore.data.readers.files import SourceRow
from swiftcore.data.rows.formats import RowNormalizer
from swiftcore.data.rows.identity import SelfCognition
from swiftcore.data.sources.row_options import RowOptions
from swiftcore.recipe.sections import CleaningSection, DataSection

FILTERED, PRIVATE, CONTAMINATED = "filtered", "private", "contaminated"


# To tell a row's language takes longer than all else together, so one row in this many is asked.
_LANGUAGE_SAMPLING = 32


def _language_sampling() -> int:
    return _LANGUAGE_SAMPLING if can_detect() else 0


class DroppedRow(Exception):
    """A row that goes no further.

    Args:
        fate: the count it belongs to: quarantined, filtered, private or contaminated.
        reason: why, as people read it.
        row: what is kept of it in quarantine.
    """

    def __init__(self, fate: str, reason: str, row: object) -> None:
        super().__init__(reason)
        self.fate = fate
        self.reason = reason
        self.row = row


@dataclass(frozen=True)
class Preparation:
    """How raw rows become rows that may be used; all that a worker process needs to know.

    Args:
        section: the recipe's wishes.
        contamination_index: pickled index of the evaluated rows, made by this run; None when these
            rows are not compared with it.
        signatures: also make a MinHash signature of each row.
    """

    section: DataSection
    contamination_index: Path | None = None
    signatures: bool = False


@dataclass
class ColumnNews:
    """What was noticed about the columns of raw rows.

    Args:
        seen: columns the rows had, after renaming.
        renamed: names in `data.columns` that a row had.
        unused: columns that were dropped, with the number of rows that had each.
        clashes: columns of which each could have been the same thing, so that none was taken.
        notes: what else was left out or odd, with the number of rows.
    """

    seen: set[str] = field(default_factory=set)
    renamed: set[str] = field(default_factory=set)
    unused: Counter[str] = field(default_factory=Counter)
    clashes: dict[str, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, other: "ColumnNews") -> None:
        """Take in what was noticed elsewhere."""
        self.seen |= other.seen
        self.renamed |= other.renamed
        self.unused += other.unused
        self.clashes |= other.clashes
        self.notes += other.notes


@dataclass
class RowNews:
    """What was counted about rows on their way.

    Args:
        columns: about their columns.
        findings: secrets and personal data.
        contamination: evaluated text in training rows.
        statistics: figures of the rows that came through.
    """

    columns: ColumnNews = field(default_factory=ColumnNews)
    findings: FindingCounts = field(default_factory=FindingCounts)
    contamination: ContaminationCounts = field(default_factory=ContaminationCounts)
    statistics: RowStatistics = field(default_factory=lambda: RowStatistics(_language_sampling()))

    def add(self, other: "RowNews") -> None:
        """Take in what was counted elsewhere."""
        self.columns.add(other.columns)
        self.findings.merge(other.findings)
        self.contamination.merge(other.contamination)
        self.statistics.merge(other.statistics)


class RowPreparer:
    """Prepares rows one by one and counts what it meets."""

    def __init__(self, preparation: Preparation) -> None:
        section = preparation.section
        cleaning = section.cleaning
        self._news = RowNews()
        self._normalizer = RowNormalizer(section.columns, section.remove_unused_columns)
        self._identity = SelfCognition(section.model_name or None, section.model_author or None)
        # Rows of other sets may speak of {{NAME}} as ordinary text.
        self._fills_identity = bool(section.model_name or section.model_author)
        self._filters = _filters(cleaning)
        self._scanner = _scanner(cleaning)
        self._index = index_at(preparation.contamination_index)
        self._drops_contaminated = cleaning.contamination == "drop"
        self._signs = preparation.signatures

    def prepare(self, raw: SourceRow, source: int, options: RowOptions) -> EncodedRow:
        """Return the row as it will be stored.

        Args:
            raw: as it was read.
            source: position of its file among the source files.
            options: what the file's registration does to its rows.

        Raises:
            DroppedRow: it goes no further.
        """
        try:
            if raw.problem is not None:
                raise RejectedRow(raw.problem)
            given = options.apply(raw.row) if options else raw.row
            given = self._identity.fill(given) if self._fills_identity else given
            row = self._normalizer.standard_row(given)
            for each in self._filters:
                reason = each.reason(row)
                if reason is not None:
                    raise DroppedRow(FILTERED, reason, raw.row)
            row = self._searched(row)
            encoded = encode_row(row, source, raw.line)
        except RejectedRow as err:
            raise DroppedRow(QUARANTINED, err.message, raw.row) from err
        self._compare(row, raw.row)
        self._news.statistics.add(row)
        return encoded

    def signature(self, row: EncodedRow) -> bytes:
        """Return the row's MinHash signature; nothing when none is wanted."""
        return row_signature(row.row) if self._signs else b""

    def news(self) -> RowNews:
        """Return what was counted since the last call."""
        normalizer, news = self._normalizer, self._news
        self._news = RowNews()
        news.columns = ColumnNews(
            set(normalizer.seen_columns()),
            set(normalizer.renamed),
            Counter(normalizer.unused_columns),
            dict(normalizer.clashes),
            Counter(normalizer.notes),
        )
        return news

    def _searched(self, row: dict[str, object]) -> dict[str, object]:
        if self._scanner is None:
            return row
        scanned = self._scanner.scan(row)
        if scanned.findings:
            self._news.findings.add(scanned.findings)
        if scanned.reason is not None:
            raise DroppedRow(PRIVATE, scanned.reason, scanned.row)
        return scanned.row

    def _compare(self, row: dict[str, object], raw: object) -> None:
        if self._index is None:
            return
        match = self._index.check(row)
        self._news.contamination.add(match)
        if match is not None and self._drops_contaminated:
            raise DroppedRow(CONTAMINATED, match.reason(), raw)


def check_cleaning(section: DataSection) -> None:
    """Build everything a worker would build, so that wrong settings are found before any work.

    Raises:
        UsageError: a limit, language, kind or placeholder setting has no meaning.
    """
    RowPreparer(Preparation(section))


def _filters(cleaning: CleaningSection) -> list[LengthFilter | LanguageFilter]:
    limits = {
        f"{end}_{unit}": getattr(cleaning, f"{end}_{unit}")
        for end in ("min", "max")
        for unit in ("characters", "words", "turns")
    }
    filters: list[LengthFilter | LanguageFilter] = []
    if any(limit is not None for limit in limits.values()):
        filters.append(LengthFilter(**limits))
    if cleaning.languages:
        filters.append(LanguageFilter(tuple(cleaning.languages)))
    return filters


def _scanner(cleaning: CleaningSection) -> PrivacyScanner | None:
    if cleaning.secrets == cleaning.personal == "off":
        return None
    return PrivacyScanner(cleaning.secrets, cleaning.personal, cleaning.privacy_ignore)


def write_index(index: ContaminationIndex, folder: Path) -> Path:
    """Write an index into a file that every worker can read; its name tells its content."""
    content = pickle.dumps(index)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:32]}.index"
    path.write_bytes(content)
    return path


@lru_cache(maxsize=1)
def index_at(path: Path | None) -> ContaminationIndex | None:
    """Return an index that `write_index` wrote."""
    # A file of this run in its own working folder; nothing from outside is unpickled.
    return None if path is None else pickle.loads(path.read_bytes())
