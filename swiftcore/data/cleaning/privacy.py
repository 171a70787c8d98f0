"""Secrets and personal data in standard rows: reported, masked or a reason to drop the row.

All text of a row is searched: messages, rejected and paired ones, tools, arguments and results of
tool calls, and every other column but media. What is found is never repeated: a finding has the
kind, the place and the length. Masking puts `[EMAIL]` and the like where the value was; JSON text
(tools, calls, results) is searched value by value and stays JSON.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from swiftcore.data.cleaning.detectors import Detector, DetectorSet, Span
from swiftcore.data.cleaning.personal_shapes import PERSONAL
from swiftcore.data.cleaning.secret_shapes import SECRETS
from swiftcore.data.quarantine import RejectedRow
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
_MAX_DEPTH = 64
# Shorter numbers are no card, account or telephone number.
_MIN_NUMBER_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a secret or personal value is in a row; never the value.

    Args:
        kind: such as EMAIL or AWS_KEY.
        place: column and position in it, such as `messages[2].content`.
        length: number of characters of the value.
    """

    kind: str
    place: str
    length: int


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
        search = _Search(self._detectors)
        changed: Row = {}
        for column, value in row.items():
            if column not in _SKIPPED:
                masked = search.value(value, column, 0)
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
        search = _Search(self._detectors, kinds)
        columns = {
            column: search.value(value, column, 0)
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
    return _masked(text, _ALL.find(text))


def _masked(text: str, spans: Iterable[Span]) -> str:
    parts: list[str] = []
    at = 0
    for span in spans:
        parts += [text[at : span.start], f"[{span.kind}]"]
        at = span.end
    return "".join([*parts, text[at:]])


class _DuplicateKey(ValueError):
    pass


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Parsing would lose the earlier value, and what is in it.
        raise _DuplicateKey
    return found


class _Search:
    """Walks the values of one row, collects findings and builds what is masked.

    A value without findings is returned as it is, the same object.
    """

    def __init__(self, detectors: DetectorSet, masked: set[str] | None = None) -> None:
        self._detectors = detectors
        self._masked = masked
        self.findings: list[Finding] = []

    def value(self, value: object, place: str, depth: int) -> object:
        if depth > _MAX_DEPTH:
            raise RejectedRow(f"{place[:80]} is nested deeper than {_MAX_DEPTH} levels")
        if isinstance(value, str):
            return self.text(value, place, depth)
        if isinstance(value, list):
            items = [self.value(item, f"{place}[{at}]", depth + 1) for at, item in enumerate(value)]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else items
        if isinstance(value, dict):
            return self._object(value, place, depth)
        if isinstance(value, int) and abs(value) >= 10**_MIN_NUMBER_DIGITS:
            digits = str(value)
            masked = self.text(digits, place, depth)
            return value if masked == digits else masked
        return value

    def _object(self, value: dict[str, object], place: str, depth: int) -> dict[str, object]:
        changed = False
        items: dict[str, object] = {}
        for key, item in value.items():
            new_key = self._plain(str(key), f"{place} (a key)")
            new_item = self.value(item, f"{place}.{new_key[:40]}", depth + 1)
            same_key = new_key == str(key)
            changed = changed or not same_key or new_item is not item
            items[str(key) if same_key else _free_key(new_key, value, items)] = new_item
        return items if changed else value

    def text(self, text: str, place: str, depth: int) -> str:
        if text[:1] in ("{", "["):
            parsed = self._json(text)
            if parsed is not None:
                new = self.value(parsed, place, depth + 1)
                return text if new is parsed else _json_like(new, text)
        return self._plain(text, place)

    def _json(self, text: str) -> dict[str, object] | list[object] | None:
        try:
            parsed = json.loads(text, object_pairs_hook=_object_of)
        except (ValueError, RecursionError):
            return None
        too_deep = not isinstance(parsed, (dict, list)) or _depth(parsed) > _MAX_DEPTH // 2
        return None if too_deep else parsed

    def _plain(self, text: str, place: str) -> str:
        spans = self._detectors.find(text)
        if not spans:
            return text
        self.findings += [Finding(span.kind, place, span.end - span.start) for span in spans]
        if self._masked is not None:
            spans = [span for span in spans if span.kind in self._masked]
        return _masked(text, spans)


def _depth(value: object) -> int:
    """Return how deeply lists and objects are nested; stops counting at the limit."""
    level, depth = [value], 0
    while level and depth <= _MAX_DEPTH:
        children: list[object] = []
        for item in level:
            if isinstance(item, (list, dict)):
                children.extend(item if isinstance(item, list) else item.values())
        level = children
        depth += 1
    return depth


def _free_key(wanted: str, *taken: Mapping[str, object]) -> str:
    """Return a masked key that hides no other one: [EMAIL], then [EMAIL] 2."""
    key, number = wanted, 1
    while any(key in keys for keys in taken):
        number += 1
        key = f"{wanted} {number}"
    return key


def _json_like(value: object, original: str) -> str:
    compact = '": ' not in original and '", ' not in original
    separators = (",", ":") if compact else (", ", ": ")
    return json.dumps(value, ensure_ascii=False, separators=separators)
