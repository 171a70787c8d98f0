"""Readers of delimited text: csv and tsv."""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from swiftcore.data.readers.lines import MAX_LINE_BYTES, Parsed, excerpt, excerpt_text, read_lines
from swiftcore.errors import DataError

_OTHER_DELIMITERS = ";\t|,"


def read_csv(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one dict a record of comma-separated values with a header line."""
    yield from _delimited(stream, source, ",")


def read_tsv(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one dict a record of tab-separated values; quotes work as in csv."""
    yield from _delimited(stream, source, "\t")


def _delimited(stream: BinaryIO, source: str, delimiter: str) -> Iterator[Parsed]:
    # The csv module's limit is global and 128 KiB by default; raising it harms nobody.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    lines = _TextLines(stream)
    # strict: a stray quote is an error we report, instead of cells that silently swallow others.
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    for first, cells, problem in _records(records, lines):
        if header is None:
            header = _header(cells, problem, f"{source}:{first}", delimiter)
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
