"""Readers of delimited text: csv and tsv.

The first line holds the names of the columns, unless the names are given. Without them, a first
line that looks like a row is an error and not a header: taken for one, a row would be lost, and all
others would have columns that nothing reads.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from swiftcore.data.readers.lines import MAX_LINE_BYTES, Parsed, excerpt, excerpt_text, read_lines
from swiftcore.errors import DataError

_OTHER_DELIMITERS = ";\t|,"
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?")
_SENTENCE_END = (".", "!", "?", "。", "！", "？")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class TableHeader:
    """What is known of the header of csv and tsv files before they are read.

    Args:
        names: of the columns, for files without a header line; a first line that holds exactly
            these names is one all the same.
        known: names in lower case that mean something; a first line with none of them, and with
            numbers or sentences, is refused. None takes any first line for a header.
    """

    names: tuple[str, ...] = ()
    known: frozenset[str] | None = None


def read_csv(
    stream: BinaryIO, source: str, header: TableHeader = TableHeader()
) -> Iterator[Parsed]:
    """Yield one dict a record of comma-separated values."""
    yield from _delimited(stream, source, ",", header)


def read_tsv(
    stream: BinaryIO, source: str, header: TableHeader = TableHeader()
) -> Iterator[Parsed]:
    """Yield one dict a record of tab-separated values; quotes work as in csv."""
    yield from _delimited(stream, source, "\t", header)


def _delimited(
    stream: BinaryIO, source: str, delimiter: str, expected: TableHeader
) -> Iterator[Parsed]:
    # The csv module's limit is global and 128 KiB by default; raising it harms nobody.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    lines = _TextLines(stream)
    # strict: a stray quote is an error we report, instead of cells that silently swallow others.
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    header: Sequence[str] = expected.names
    begun = False
    for first, cells, problem in _records(records, lines):
        at_start, begun = not begun, True
        if at_start and not expected.names:
            header = _header(cells, problem, f"{source}:{first}", delimiter)
            _require_no_row(header, expected, f"{source}:{first}")
        elif at_start and _folded(cells) == _folded(header):
            continue
        elif problem is None and len(cells) != len(header):
            problem = f"{len(cells)} cells under {len(header)} column names"
            yield Parsed(first, lines.raw, problem)
        elif problem is not None:
            yield Parsed(first, lines.raw, problem)
        else:
            yield Parsed(first, {k: v or None for k, v in zip(header, cells, strict=True)})


def _records(
    records: Iterator[list[str]], lines: "_TextLines"
) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield (first line, cells, problem), skipping blank lines."""
    while True:
        first = lines.number + 1
        lines.begin_record()
        try:
            cells = next(records)
        except StopIteration:
            return
        except csv.Error as err:
            yield first, [], f"not valid csv: {err} (lines {first} to {lines.number})"
            continue
        if lines.problem is not None:
            yield first, cells, lines.problem
        elif cells:
            yield first, cells, None


def _header(cells: list[str], problem: str | None, where: str, delimiter: str) -> list[str]:
    names = [name.strip() for name in cells]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if problem is None and repeated:
        problem = f"column name {repeated[0]!r} stands there more than once"
    if problem is not None:
        raise DataError(
            "the header line is bad",
            where=where,
            found=problem,
            expected="one line of column names, each once",
            do="correct the first line of the file",
        )
    other = next((mark for mark in _OTHER_DELIMITERS if mark in names[0]), None)
    if len(names) == 1 and other is not None and other != delimiter:
        raise DataError(
            "the columns are separated by another character",
            where=where,
            found=names[0][:100],
            expected=f"columns separated by {delimiter!r}",
            do="rename it to .tsv" if other == "\t" else "save it with commas, or as .jsonl",
        )
    return names


def _require_no_row(names: Sequence[str], expected: TableHeader, where: str) -> None:
    if expected.known is None or not expected.known.isdisjoint(_folded(names)):
        return
    if any(_is_value(name) for name in names):
        raise DataError(
            "the first line is a row, and no header",
            where=where,
            found=", ".join(names)[:300],
            expected="one line of column names",
            do="name the columns with data.column_names (or column_names in custom_dataset_info, "
            "or swift dataset --column-names), or put a header line above the rows",
        )


def _is_value(cell: str) -> bool:
    """Tell whether a cell is a number or a sentence, which names of columns are not."""
    sentence = cell.endswith(_SENTENCE_END) or len(cell) > _LONGEST_NAME or "\n" in cell
    return sentence or _NUMBER.fullmatch(cell) is not None


def _folded(cells: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


class _TextLines:
    """Decoded lines for the csv module, which remembers what was wrong with the latest ones."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = read_lines(stream)
        self.number = 0
        self.problem: str | None = None
        self.raw = ""

    def begin_record(self) -> None:
        """Forget the lines of the record before."""
        self.problem, self.raw = None, ""

    def __iter__(self) -> "_TextLines":
        return self

    def __next__(self) -> str:
        self.number, line, problem = next(self._lines)
        if not isinstance(line, bytes):
            self.problem = problem
            self._keep(str(line))
            return "\n"
        self._keep(excerpt(line))
        if b"\0" in line:
            self.problem = f"NUL byte (line {self.number})"
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            self.problem = f"invalid UTF-8 (line {self.number})"
            return line.decode("utf-8", errors="replace")

    def _keep(self, text: str) -> None:
        self.raw = excerpt_text(f"{self.raw}\n{text}" if self.raw else text)
