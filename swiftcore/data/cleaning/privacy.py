"""Secrets and personal data in standard rows: reported, masked or a reason to drop the row.

All text of a row is searched: messages, rejected and paired ones, tools, arguments and results of
tool calls, and every other column but media. What is found is never repeated: a finding has the
kind, the place and the length. Masking puts `[EMAIL]` and the like where the value was; JSON text
(tools, calls, results) is searched value by value and stays JSON.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from swiftcore.data.cleaning.detectors import Detector, DetectorSet
from swiftcore.data.cleaning.personal_shapes import PERSONAL
from swiftcore.data.cleaning.row_search import Finding, RowSearch, masked_text
from swiftcore.data.cleaning.secret_shapes import SECRETS
from swiftcore.errors import UsageError

Row = dict[str, object]
Action = Literal["off", "warn", "mask", "drop"]

DETECTORS: tuple[Detector, ...] = (*SECRETS, *PERSONAL)
KINDS: tuple[str, ...] = tuple(dict.fromkeys(detector.kind for detector in DETECTORS))

_ALL = DetectorSet(DETECTORS)
_FAMILIES = {detector.kind: detector.family for detector in DETECTORS}
_MEDIA = ("images", "videos", "audios", "objects")
_SKIPPED = frozenset(
    side + name for side in ("", "rejected_", "positive_", "negative_") for name in _MEDIA
)


@dataclass(frozen=True, slots=True)
class ScannedRow:
    """What a scan made of a row.

    Args:
        row: the row as it goes on; masked where the scanner masks.
        findings: what was found in it, also what was only reported.
        reason: why the row is to be dropped, None when it stays. `row` then is masked in full, so
            that it can be kept in quarantine.
    """

    row: Row
    findings: list[Finding]
    reason: str | None = None


@dataclass(slots=True)
class FindingCounts:
    """Rows and values with findings, by kind; merges over chunks in any order."""

    rows: Counter[str] = field(default_factory=Counter[str])
    values: Counter[str] = field(default_factory=Counter[str])

    def add(self, findings: Iterable[Finding]) -> None:
        """Count the findings of one row."""
        kinds = Counter(finding.kind for finding in findings)
        self.values.update(kinds)
        self.rows.update(kinds.keys())

    def merge(self, other: "FindingCounts") -> None:
        """Add the counts of another chunk."""
        self.values.update(other.values)
        self.rows.update(other.rows)


class PrivacyScanner:
    """Searches rows for secrets and personal data and does what was asked with them.

    Args:
        secrets: what to do about secrets: off, warn (report), mask or drop the row.
        personal: the same for personal data.
        ignore: kinds to leave alone, such as IP_ADDRESS.

    Raises:
        UsageError: an action or a kind is unknown.
    """

    def __init__(
        self, secrets: Action = "warn", personal: Action = "warn", ignore: Collection[str] = ()
    ) -> None:
        for name, action in (("secrets", secrets), ("personal", personal)):
            if action not in get_args(Action):
                raise UsageError(
                    "no such action",
                    where=name,
                    found=repr(action),
                    expected=", ".join(get_args(Action)),
                )
        unknown = sorted(set(ignore) - set(KINDS))
        if unknown:
            raise UsageError(
                "no such kind of finding",
                where="ignore",
                found=", ".join(unknown),
                expected=", ".join(KINDS),
            )
        actions: dict[str, Action] = {"secret": secrets, "personal": personal}
        self._action = {
            kind: "off" if kind in ignore else actions[family] for kind, family in _FAMILIES.items()
        }
        self._detectors = DetectorSet(d for d in DETECTORS if self._action[d.kind] != "off")

    def scan(self, row: Row) -> ScannedRow:
        """Return a standard row as it goes on, with what was found in it.

        Raises:
            RejectedRow: the row is nested too deeply to be searched.
        """
        search = RowSearch(self._detectors)
        changed: Row = {}
        for column, value in row.items():
            if column not in _SKIPPED:
                masked = search.value(value, column, name=column)
                if masked is not value:
                    changed[column] = masked
        if not search.findings:
            return ScannedRow(row, [])
        dropped = sorted({f.kind for f in search.findings if self._action[f.kind] == "drop"})
        if dropped:
            reason = f"the row holds {', '.join(dropped)}"
            return ScannedRow(row | changed, search.findings, reason)
        wanted = {f.kind for f in search.findings if self._action[f.kind] == "mask"}
        if not wanted:
            return ScannedRow(row, search.findings)
        if any(finding.kind not in wanted for finding in search.findings):
            changed = self._masked_columns(row, wanted)
        return ScannedRow(row | changed, search.findings)

    def _masked_columns(self, row: Row, kinds: set[str]) -> Row:
        """Return the columns that change when only some of the kinds found are masked."""
        search = RowSearch(self._detectors, kinds)
        columns = {
            column: search.value(value, column, name=column)
            for column, value in row.items()
            if column not in _SKIPPED
        }
        return {column: value for column, value in columns.items() if value is not row[column]}


def scan_text(text: str) -> list[Finding]:
    """Return what is found in a text; the place is the number of the character, from 0."""
    return [
        Finding(span.kind, f"character {span.start}", span.end - span.start)
        for span in _ALL.find(text)
    ]


def mask_text(text: str) -> str:
    """Return a text with every secret and personal value replaced by its kind in brackets."""
    return masked_text(text, _ALL.find(text))
