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

from swiftcore.data.readers.json_rows import read_json, read_jsonl
from swiftcore.data.readers.lines import Parsed
from swiftcore.data.readers.tables import read_csv, read_parquet, read_tsv
from swiftcore.data.readers.texts import read_texts
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
