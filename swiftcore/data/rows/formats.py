"""Row formats: which columns hold the conversation, and how they become a standard row.

The choice follows ms-swift: a column named messages, conversation or conversations decides for
messages; else instruction together with input for alpaca; else query and response with their
synonyms. Column names match in any case. Where two columns could be the same thing, the one that
already has the standard name wins; without one, neither is used and a note says so.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from swiftcore.data.quarantine import QuarantinedRow, RejectedRow
from swiftcore.data.rows.messages import (
    kind_of,
    parse_literal,
    standard_messages,
    text_of,
)
from swiftcore.data.rows.standard import finish_row
from swiftcore.errors import DataError, UsageError

Row = dict[str, object]

_PAIRED = ("messages", "images", "videos", "audios", "tools", "objects")
STANDARD_COLUMNS = (
    *_PAIRED,
    *(f"{side}_{name}" for side in ("rejected", "positive", "negative") for name in _PAIRED),
    "rejected_response",
    "label",
    "channel",
    "margin",
    "chat_template_kwargs",
)
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversation", "conversations"),
    "system": ("system", "system_prompt"),
    "images": ("images", "image"),
    "videos": ("videos", "video"),
    "audios": ("audios", "audio"),
    "query": ("query", "prompt", "input", "instruction", "question", "problem"),
    "response": (
        *("response", "answer", "output", "targets", "target", "answer_key", "answers"),
        *("solution", "text", "completion", "content"),
    ),
}
_KNOWN_COLUMNS = {*STANDARD_COLUMNS, "history", *(n for names in _SYNONYMS.values() for n in names)}
_MAX_CACHED_SHAPES = 1000


@dataclass(frozen=True)
class _Shape:
    """What to do with rows that have a certain set of columns."""

    kind: Literal["messages", "alpaca", "query"]
    renames: dict[str, str]
    clashes: dict[str, list[str]]


class RowNormalizer:
    """Turns raw rows into standard rows and remembers what it noticed about their columns.

    Args:
        columns: `{source name: standard name}`, renamed before anything else.
        remove_unused_columns: keep only standard columns; false keeps the others as they are.

    Raises:
        UsageError: a target of `columns` is no column this project knows.
    """

    def __init__(
        self, columns: Mapping[str, str] | None = None, remove_unused_columns: bool = True
    ) -> None:
        self._columns = {source.lower(): target for source, target in (columns or {}).items()}
        self._remove_unused = remove_unused_columns
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self.renamed: set[str] = set()
        self.unused_columns: Counter[str] = Counter()
        self.clashes: dict[str, list[str]] = {}
        if remove_unused_columns:
            _check_targets(self._columns)

    def standard_row(self, value: object) -> Row:
        """Return the standard form of one raw row.

        Raises:
            RejectedRow: it has none; the message says why.
        """
        row = self._rename(_as_row(value))
        shape = self._shape_of(row)
        if "messages" in shape.clashes:
            names = " and ".join(shape.clashes["messages"])
            raise RejectedRow(f"{names} could both be the messages; rename one with columns")
        solution = row.get("solution")
        for old, new in shape.renames.items():
            row[new] = row.pop(old)
        system = row.pop("system", None)
        if shape.kind == "messages":
            row["messages"] = standard_messages(row["messages"], system)
        else:
            if shape.kind == "alpaca":
                _join_instruction(row)
            row["messages"] = _messages_of_pair(row, system)
            if solution is not None:
                row["solution"] = solution
        finish_row(row, system)
        return self._keep_columns(row)

    def missing_columns(self) -> list[str]:
        """Return the names in `columns` that no row had so far."""
        return [name for name in self._columns if name not in self.renamed]

    def seen_columns(self) -> list[str]:
        """Return the names of the columns that rows had so far, after renaming."""
        return sorted({name for names in self._shapes for name in names})

    def _rename(self, row: Row) -> Row:
        if not self._columns:
            return row
        targets = self._columns
        wanted = {name: targets[name.lower()] for name in row if name.lower() in targets}
        self.renamed.update(name.lower() for name in wanted)
        kept = {n: v for n, v in row.items() if n not in wanted and n not in wanted.values()}
        return kept | {target: row[name] for name, target in wanted.items()}

    def _shape_of(self, row: Row) -> _Shape:
        names = tuple(row)
        shape = self._shapes.get(names)
        if shape is None:
            shape = _make_shape(names)
            if len(self._shapes) < _MAX_CACHED_SHAPES:
                self._shapes[names] = shape
            self.clashes |= shape.clashes
        return shape

    def _keep_columns(self, row: Row) -> Row:
        kept: Row = {}
        for name, value in row.items():
            if name in STANDARD_COLUMNS or not self._remove_unused:
                kept[name] = value
            else:
                self.unused_columns[name] += 1
        return {name: value for name, value in kept.items() if value is not None}


def normalize_rows(
    rows: Iterable[object],
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
    remove_unused_columns: bool = True,
) -> tuple[list[Row], list[QuarantinedRow]]:
    """Turn raw rows of any accepted format into standard rows.

    Args:
        rows: raw rows; each becomes one standard or one quarantined row.
        columns: `{source name: standard name}`, renamed first.
        strict: raise at the first row that has no standard form.
        remove_unused_columns: keep only standard columns.

    Returns:
        (standard rows, quarantined rows); their lengths add up to the number of rows given.

    Raises:
        DataError: with `strict`, naming the first bad row.
        UsageError: a target of `columns` is unknown.
    """
    normalizer = RowNormalizer(columns, remove_unused_columns)
    standard: list[Row] = []
    quarantine: list[QuarantinedRow] = []
    for index, value in enumerate(rows):
        try:
            standard.append(normalizer.standard_row(value))
        except RejectedRow as err:
            if strict:
                raise DataError(
                    "a row has no standard form",
                    where=f"row {index}",
                    found=err.message,
                    do="mend the row, or leave strict off to set bad rows aside",
                ) from err
            quarantine.append(QuarantinedRow(index, err.message, value))
    return standard, quarantine


def _check_targets(columns: Mapping[str, str]) -> None:
    for source, target in columns.items():
        if target not in _KNOWN_COLUMNS:
            close = difflib.get_close_matches(target, sorted(_KNOWN_COLUMNS), n=1)
            raise UsageError(
                "a column is renamed to a name nothing reads",
                where=f"columns[{source!r}]",
                found=target,
                expected=f"perhaps {close[0]}" if close else "query, response, messages, ...",
                do="name a standard column, or set remove_unused_columns to false to keep it",
            )


def _as_row(value: object) -> Row:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {"messages": value}
    if not isinstance(value, Mapping):
        raise RejectedRow(f"the row is {kind_of(value)}, expected an object")
    return {str(name): item for name, item in value.items()}


def _make_shape(names: tuple[str, ...]) -> _Shape:
    lower = {name.lower() for name in names}
    if lower & set(_SYNONYMS["messages"]):
        kind, targets = "messages", ("messages", "system", "images", "videos", "audios")
    elif {"instruction", "input"} <= lower:
        kind, targets = "alpaca", ("system", "images", "videos", "audios", "response")
    else:
        kind, targets = "query", ("system", "images", "videos", "audios", "query", "response")
    renames: dict[str, str] = {}
    clashes: dict[str, list[str]] = {}
    for target in targets:
        present = [name for name in names if name.lower() in _SYNONYMS[target]]
        if len(present) == 1 and present[0] != target:
            renames[present[0]] = target
        elif len(present) > 1 and target not in present:
            clashes[target] = present
    if kind == "alpaca":
        alpaca = ("instruction", "input")
        renames |= {n: n.lower() for n in names if n.lower() in alpaca and n != n.lower()}
    return _Shape(kind, renames, clashes)


def _join_instruction(row: Row) -> None:
    parts = [row.pop("instruction", None), row.pop("input", None)]
    texts = [text_of(part, "instruction") for part in parts if part not in (None, "")]
    row["query"] = "\n".join(texts)


def _messages_of_pair(row: Row, system: object) -> list[dict[str, object]]:
    query, response = row.pop("query", None), row.pop("response", None)
    history = row.pop("history", None)
    if query is None and response is None:
        raise RejectedRow(
            "no column holds a conversation: columns are "
            + (", ".join(row)[:200] or "none")
            + "; expected messages, or query and response or their synonyms"
        )
    if isinstance(response, (list, tuple)):
        if not response:
            raise RejectedRow("the response is an empty list")
        response = response[0]
    messages: list[dict[str, object]] = []
    for question, answer in [*_history(history), (query, response)]:
        if question is not None:
            messages.append({"role": "user", "content": text_of(question, "query")})
        if answer is not None:
            messages.append({"role": "assistant", "content": text_of(answer, "response")})
    return standard_messages(messages, system)


def _history(value: object) -> list[tuple[object, object]]:
    if value is None or value == "":
        return []
    items = parse_literal(value, "history") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise RejectedRow(f"history is {kind_of(items)}, expected a list of pairs")
    pairs: list[tuple[object, object]] = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise RejectedRow(f"history[{number}] is no [question, answer] pair")
        pairs.append((item[0], item[1]))
    return pairs
