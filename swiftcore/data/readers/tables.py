"""Readers of tables: csv, tsv and parquet."""

import csv
import io
from collections.abc import Iterator
from typing import BinaryIO

from swiftcore.data.readers.lines import MAX_LINE_BYTES, Parsed, excerpt, read_lines
from swiftcore.errors import DataError

_PARQUET_BATCH_ROWS = 1024


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
            header = _header(cells, problem, source, first)
        elif problem is None and len(cells) != len(header):
            problem = f"{len(cells)} cells under {len(header)} column names"
            yield Parsed(first, delimiter.join(cells), problem)
        elif problem is not None:
            yield Parsed(first, lines.last, problem)
        else:
            yield Parsed(first, {k: v or None for k, v in zip(header, cells, strict=True)})


def _records(
    records: Iterator[list[str]], lines: "_TextLines"
) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield (first line, cells, problem), skipping blank lines."""
    while True:
        first = lines.number + 1
        lines.problem = None
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


def _header(cells: list[str], problem: str | None, source: str, line: int) -> list[str]:
    names = [name.strip() for name in cells]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if problem is None and repeated:
        problem = f"column name {repeated[0]!r} stands there more than once"
    if problem is not None:
        raise DataError("the header line is bad", where=f"{source}:{line}", found=problem)
    return names


class _TextLines:
    """Decoded lines for the csv module, which remembers what was wrong with the latest ones."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = read_lines(stream)
        self.number = 0
        self.problem: str | None = None
        self.last = ""

    def __iter__(self) -> "_TextLines":
        return self

    def __next__(self) -> str:
        self.number, line, problem = next(self._lines)
        if not isinstance(line, bytes):
            self.problem, self.last = problem, str(line)
            return "\n"
        self.last = excerpt(line)
        if b"\0" in line:
            self.problem = f"NUL byte (line {self.number})"
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            self.problem = f"invalid UTF-8 (line {self.number})"
            return line.decode("utf-8", errors="replace")


def read_parquet(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one dict a row; the line is the row's number, from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A gzip stream can seek, but only by unpacking from the start again.
    on_disk = isinstance(getattr(stream, "raw", None), io.FileIO)
    number = 0
    try:
        file = pq.ParquetFile(stream if on_disk else pa.BufferReader(stream.read()))
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield Parsed(number, {key: _without_nulls(value) for key, value in row.items()})
    except (pa.ArrowException, OSError) as err:
        raise DataError(
            "the file is damaged or no parquet file",
            where=f"{source}, after row {number}",
            found=str(err).splitlines()[0],
            do="fetch or write the file again; nothing of it was used",
        ) from err


def _without_nulls(value: object) -> object:
    """Drop null members of nested structs: parquet adds them where other rows have the key."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
