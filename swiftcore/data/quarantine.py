"""Rows that can't be used: kept with their place and reason, so that nobody has to guess."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

from swiftcore.errors import DataError

MAX_KEPT_CHARACTERS = 100_000
NUM_EXAMPLES = 5
QUARANTINED = "quarantined"
"""Fate of a row that has no standard form; other rows are dropped because the recipe asks so."""

_FIELD = re.compile(r"(?P<field>(?P<column>\w+)(\[\d+\]|\.\w+)*)")


class RejectedRow(DataError):
    """One row can't become a standard row; the message is the reason."""


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row that was set aside.

    Args:
        index: place in the rows that were given, from 0.
        reason: what is wrong with it, in one line.
        row: the row as it came.
    """

    index: int
    reason: str
    row: object


class QuarantineFile:
    """Writes `quarantine.jsonl` as the rows come, so it is readable whatever happens afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        self._first_places: dict[str, str] = {}
        self._stream: TextIO | None = None

    def __enter__(self) -> "QuarantineFile":
        self._stream = self.path.open("w", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def add(self, lines: Iterable[str], dropped: Iterable[tuple[str, str, str]]) -> None:
        """Write lines made by `quarantine_line`; `dropped` has fate, reason and place of each."""
        if self._stream is None:
            raise RuntimeError("QuarantineFile.add is for use inside its with block")
        self._stream.writelines(lines)
        self._stream.flush()
        for fate, reason, place in dropped:
            self.reasons[reason] += 1
            if fate == QUARANTINED and len(self._first_places) < NUM_EXAMPLES:
                self._first_places.setdefault(reason, place)

    def examples(self) -> list[str]:
        """Return `file:line: reason` of the first bad row of each of the first few reasons."""
        lines: list[str] = []
        for reason, place in self._first_places.items():
            more = self.reasons[reason] - 1
            lines.append(f"{place}: {reason}" + (f" (and {more:,} more like it)" if more else ""))
        return lines


def quarantine_line(source: str, line: int, reason: str, row: object, parsed: bool) -> str:
    """Return one line of `quarantine.jsonl`: `{"source", "line", "field", "reason", "row"}`.

    `row` is the raw row as JSON text, or the raw text of a line that could not be parsed, cut
    after `MAX_KEPT_CHARACTERS` characters; `parsed` tells the two apart. `field` is the part of
    the row the reason begins with, as in "messages[2]: unknown role"; null when it is about all.
    """
    raw = json.dumps(row, ensure_ascii=False, default=repr) if parsed else str(row)
    head = _FIELD.match(reason)
    known = head is not None and isinstance(row, dict) and head["column"] in row
    entry = {
        "source": source,
        "line": line,
        "field": head["field"] if head is not None and known else None,
        "reason": reason,
        "row": raw[:MAX_KEPT_CHARACTERS],
    }
    # ASCII escapes carry lone surrogates, which UTF-8 output would refuse.
    return json.dumps(entry, ensure_ascii=True) + "\n"
