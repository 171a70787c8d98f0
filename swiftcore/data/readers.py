"""Reading data files row by row, so that one bad line costs one row and not the file.

| suffix (each also `.gz`) | rows |
|---|---|
| .jsonl, .ndjson | one JSON value a line; blank lines are no rows |
| .json | a list of rows, or `{"data": [...]}`; JSON lines under this name are recognised |
| .csv, .tsv | a header line, then one row each; an empty cell is a missing value |
| .parquet | one row each; the line is the row's number |
| .txt | one `{"text": ...}` row a paragraph; a line, where no blank line stands between any |

Text is UTF-8, with or without byte order mark.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from swiftcore.data.documents import read_json, read_jsonl
from swiftcore.data.lines import MAX_LINE_BYTES, Parsed, excerpt, read_lines
from swiftcore.data.tables import read_csv, read_parquet, read_tsv
from swiftcore.errors import DataError

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as it stands in its file.

    Args:
        row: the parsed value; the raw text, cut, when it could not be parsed.
        source: name of the file, as the recipe writes it.
        line: line the row starts at, from 1; the row's number in parquet.
        problem: why the row could not be parsed; None for a good one.
    """

    row: object
    source: str
    line: int
    problem: str | None = None


def data_suffix(path: Path) -> str | None:
    """Return the suffix that decides the format, without `.gz`; None when it is no data file."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in DATA_SUFFIXES if name.endswith(suffix)), None)


def read_rows(path: Path, name: str | None = None) -> Iterator[SourceRow]:
    """Yield the rows of one file; a row that can't be parsed comes with its `problem`.

    Raises:
        DataError: the file is empty, no known format, damaged as a whole, or not readable.
    """
    source = name or str(path)
    reader = _reader_of(path, source)
    count = 0
    try:
        with _open(path) as stream:
            for parsed in reader(stream, source):
                count += 1
                yield SourceRow(parsed.value, source, parsed.line, parsed.problem)
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        raise DataError(
            "the file is a damaged or cut-off gzip archive",
            where=f"{source}, after row {count}",
            found=err,
            do="fetch the file again; nothing of it was used",
        ) from err
    except OSError as err:
        raise DataError("the file can't be read", where=source, found=err.strerror or err) from err
    if count == 0:
        size_bytes = path.stat().st_size
        raise DataError(
            "the file is empty" if size_bytes == 0 else "the file has no rows",
            where=source,
            found=f"{size_bytes} bytes",
            expected="at least one row",
            do="fill the file, or take it out of the recipe",
        )


def _reader_of(path: Path, source: str) -> Callable[[BinaryIO, str], Iterator[Parsed]]:
    suffix = data_suffix(path)
    if suffix is None:
        raise DataError(
            "the file's format is not known",
            where=source,
            found=f"a name ending in {''.join(path.suffixes) or 'no suffix'}",
            expected=", ".join(DATA_SUFFIXES) + ", each also .gz",
            do="rename the file after its format, or convert it to .jsonl",
        )
    if not path.is_file():
        raise DataError("this is no regular file", where=source, expected="a file on disk")
    return {
        ".jsonl": read_jsonl,
        ".ndjson": read_jsonl,
        ".json": read_json,
        ".csv": read_csv,
        ".tsv": read_tsv,
        ".parquet": read_parquet,
        ".txt": read_texts,
    }[suffix]


def _open(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(gzip.open(path, "rb"), 2**18)  # type: ignore[arg-type]
    return path.open("rb")


def read_texts(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one `{"text": ...}` a paragraph, or a line where no blank line stands between any."""
    by_line = not _has_paragraphs(stream)
    stream.seek(0)
    group: list[Parsed] = []
    for line in read_lines(stream):
        blank = _is_blank(line)
        if not blank:
            group.append(line)
        if group and (blank or by_line):
            yield _text_row(group)
            group = []
    if group:
        yield _text_row(group)


def _has_paragraphs(stream: BinaryIO) -> bool:
    seen_text = seen_gap = False
    for line in read_lines(stream):
        blank = _is_blank(line)
        if seen_gap and not blank:
            return True
        seen_text = seen_text or not blank
        seen_gap = seen_gap or (blank and seen_text)
    return False


def _is_blank(line: Parsed) -> bool:
    return isinstance(line.value, bytes) and not line.value.strip()


def _text_row(lines: list[Parsed]) -> Parsed:
    number = lines[0].line
    for line in lines:
        if line.problem is not None:
            return Parsed(number, line.value, f"{line.problem} (line {line.line})")
    raw = b"".join(line.value for line in lines if isinstance(line.value, bytes))
    if len(raw) > MAX_LINE_BYTES:
        return Parsed(number, excerpt(raw), f"paragraph is longer than {MAX_LINE_BYTES} bytes")
    try:
        return Parsed(number, {"text": raw.decode("utf-8").replace("\r\n", "\n").rstrip("\n")})
    except UnicodeDecodeError as err:
        place = number + raw.count(b"\n", 0, err.start)
        return Parsed(number, excerpt(raw), f"invalid UTF-8 (line {place})")
