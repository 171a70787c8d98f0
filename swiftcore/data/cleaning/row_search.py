"""The search through one row: every text in it, JSON text value by value, and its masked form."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swiftcore.data.cleaning.detectors import DetectorSet, Span
from swiftcore.data.quarantine import RejectedRow

_MAX_DEPTH = 64
_MAX_NAME = 60
# Names that make a value under them a finding: `api_key`, `phone_number`.
_TELLING_NAME = re.compile(
    r"key|secret|token|passw|passphrase|pwd|credential|tel|phone|mobile|cell|fax|whatsapp"
    r"|电话|手机|手機|電話|联系方式",
    re.IGNORECASE,
)
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


def masked_text(text: str, spans: Iterable[Span]) -> str:
    """Return a text with its spans, in order of place, replaced by their kinds in brackets."""
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


class RowSearch:
    """Walks the values of one row, collects findings and builds what is masked.

    A value without findings is returned as it is, the same object.

    Args:
        detectors: what is sought.
        masked: kinds to mask; None masks all that is found.
    """

    def __init__(self, detectors: DetectorSet, masked: set[str] | None = None) -> None:
        self._detectors = detectors
        self._masked = masked
        self.findings: list[Finding] = []

    def value(self, value: object, place: str, depth: int = 0, name: str = "") -> object:
        """Search a value; return it with what is found masked, or itself when nothing is.

        Args:
            value: of a column, with anything JSON can hold inside.
            place: of the value in its row, for findings.
            depth: how deeply the value is nested.
            name: of the column or key that holds the value.

        Raises:
            RejectedRow: it is nested too deeply.
        """
        if depth > _MAX_DEPTH:
            raise RejectedRow(f"{place[:80]} is nested deeper than {_MAX_DEPTH} levels")
        if isinstance(value, str):
            return self._text(value, place, depth, name)
        if isinstance(value, (list, tuple)):
            items = [
                self.value(item, f"{place}[{at}]", depth + 1, name) for at, item in enumerate(value)
            ]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else items
        if isinstance(value, dict):
            return self._object(value, place, depth)
        if isinstance(value, int) and abs(value) >= 10**_MIN_NUMBER_DIGITS:
            digits = str(value)
            masked = self._plain(digits, place, name)
            return value if masked == digits else masked
        return value

    def _object(self, value: dict[str, object], place: str, depth: int) -> dict[str, object]:
        changed = False
        items: dict[str, object] = {}
        for key, item in value.items():
            name = str(key)
            new_name = self._plain(name, f"{place} (a key)")
            new_item = self.value(item, f"{place}.{new_name[:40]}", depth + 1, name)
            same_name = new_name == name
            changed = changed or not same_name or new_item is not item
            items[name if same_name else _free_key(new_name, value, items)] = new_item
        return items if changed else value

    def _text(self, text: str, place: str, depth: int, name: str) -> str:
        if text[:1] in ("{", "["):
            parsed = self._json(text)
            if parsed is not None:
                new = self.value(parsed, place, depth + 1)
                return text if new is parsed else _json_like(new, text)
        return self._plain(text, place, name)

    def _json(self, text: str) -> dict[str, object] | list[object] | None:
        try:
            parsed = json.loads(text, object_pairs_hook=_object_of)
        except (ValueError, RecursionError):
            return None
        too_deep = not isinstance(parsed, (dict, list)) or _depth(parsed) > _MAX_DEPTH // 2
        return None if too_deep else parsed

    def _plain(self, text: str, place: str, name: str = "") -> str:
        """Search a text; a telling name counts as if the text were assigned to it."""
        spans = self._assigned(text, name) if name and _TELLING_NAME.search(name) else None
        if spans is None:
            spans = self._detectors.find(text)
        if not spans:
            return text
        self.findings += [Finding(span.kind, place, span.end - span.start) for span in spans]
        if self._masked is not None:
            spans = [span for span in spans if span.kind in self._masked]
        return masked_text(text, spans)

    def _assigned(self, text: str, name: str) -> list[Span]:
        before = f'{name[-_MAX_NAME:]}="'
        found = self._detectors.find(f'{before}{text}"')
        start = len(before)
        return [
            Span(span.kind, span.start - start, min(span.end - start, len(text)))
            for span in found
            if span.start >= start
        ]


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
