"""Rows that can't be used: kept with their place and reason, so that nobody has to guess."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

from swiftcore.errors import DataError

MAX_KEPT_CHARACTERS = 100_000
NUM_EXAMPLES = 5


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
    """Writes `quarantine.jsonl` line by line, so it is readable whatever happens afterwards.

    Each line is `{"source", "line", "reason", "row"}`; `row` is the raw row as JSON text, or the
    raw text of a line that could not be parsed, cut after `MAX_KEPT_CHARACTERS` characters.
    """

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

    def add(self, source: str, line: int, reason: str, row: object, parsed: bool) -> None:
        """Write one row; `parsed` tells a JSON value from the raw text of a broken line."""
        if self._stream is None:
            raise RuntimeError("QuarantineFile.add is for use inside its with block")
        raw = json.dumps(row, ensure_ascii=False, default=repr) if parsed else str(row)
        entry = {
            "source": source,
            "line": line,
            "reason": reason,
            "row": raw[:MAX_KEPT_CHARACTERS],
        }
        # ASCII escapes carry lone surrogates, which UTF-8 output would refuse.
        self._stream.write(json.dumps(entry, ensure_ascii=True) + "\n")
        self.reasons[reason] += 1
        if len(self._first_places) < NUM_EXAMPLES:
            self._first_places.setdefault(reason, f"{source}:{line}")

    def examples(self) -> list[str]:
        """Return `file:line: reason` of the first row of each of the first few reasons."""
        lines: list[str] = []
        for reason, place in self._first_places.items():
            more = self.reasons[reason] - 1
            lines.append(f"{place}: {reason}" + (f" (and {more:,} more like it)" if more else ""))
        return lines
