"""Reading data files row by row, so that one bad line costs one row and not the file.

| suffix (each also `.gz` and `.zst`) | rows |
|---|---|
| .jsonl, .ndjson | one JSON value a line; blank lines are no rows |
| .json | a list of rows, or `{"data": [...]}`; JSON lines under this name are recognised |
| .csv, .tsv | a header line unless names are given, then one row each; an empty cell is missing |
| .parquet | one row each; the line is the row's number |
| .arrow, .feather | Arrow IPC file or stream, one row each; the line is the row's number |
| .txt | one `{"text": ...}` row a paragraph; a line, where no blank line stands between any |

Text is UTF-8, with or without byte order mark. Memory stays bounded however long a file is.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from swiftcore.data.readers.columnar import read_arrow, read_parquet
from swiftcore.data.readers.json_rows import read_json, read_jsonl
from swiftcore.data.readers.lines import Parsed
from swiftcore.data.readers.streams import ARCHIVE_ERRORS, COMPRESSIONS, Stamp, open_data
from swiftcore.data.readers.tables import TableHeader, read_csv, read_tsv
from swiftcore.data.readers.texts import read_texts
from swiftcore.errors import DataError

Reader = Callable[[BinaryIO, str], Iterator[Parsed]]

_READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".txt": read_texts,
}
_TABLE_READERS = {".csv": read_csv, ".tsv": read_tsv}
TABLE_SUFFIXES = tuple(_TABLE_READERS)
DATA_SUFFIXES = (
    ".jsonl",
    ".ndjson",
    ".json",
    *TABLE_SUFFIXES,
    ".parquet",
    ".arrow",
    ".feather",
    ".txt",
)


class SourceRow(NamedTuple):
    """One row as it stands in its file.

    Args:
        row: the parsed value; the raw text, cut, when it could not be parsed.
        source: name of the file, as the recipe writes it.
        line: line the row starts at, from 1; the row's number in parquet and Arrow files.
        problem: why the row could not be parsed; None for a good one.
    """

    row: object
    source: str
    line: int
    problem: str | None = None


def data_suffix(path: Path) -> str | None:
    """Return the suffix that decides the format, without compression; None for no data file."""
    name = path.name.lower()
    name = next((name.removesuffix(end) for end in COMPRESSIONS if name.endswith(end)), name)
    return next((suffix for suffix in DATA_SUFFIXES if name.endswith(suffix)), None)


def read_rows(
    path: Path, name: str | None = None, header: TableHeader | None = None
) -> Iterator[SourceRow]:
    """Yield the rows of one file; a row that can't be parsed comes with its `problem`.

    Args:
        path: the file.
        name: its name in rows and messages.
        header: what is known of the columns of a csv or tsv file.

    Raises:
        DataError: the file is empty, no known format, damaged as a whole, not readable, or it
            changed while it was read.
    """
    source = name or str(path)
    count = 0
    for row in rows_by(reader_of(path, source, header), path, source):
        count += 1
        yield row
    if count == 0:
        size_bytes = path.stat().st_size
        raise DataError(
            "the file is empty" if size_bytes == 0 else "the file has no rows",
            where=source,
            found=f"{size_bytes} bytes",
            expected="at least one row",
            do="fill the file, or take it out of the recipe",
        )


def rows_by(
    reader: Reader, path: Path, source: str, stamp: Stamp | None = None
) -> Iterator[SourceRow]:
    """Yield what a reader finds in a file.

    Args:
        reader: takes the unpacked stream and the file's name.
        path: the file.
        source: its name in rows and messages.
        stamp: state the file must still have.

    Raises:
        DataError: it is damaged as a whole, not readable, or it changed while it was read.
    """
    count = 0
    try:
        with open_data(path, source, stamp) as stream:
            for line, value, problem in reader(stream, source):
                count += 1
                yield SourceRow(value, source, line, problem)
    except ARCHIVE_ERRORS as err:
        raise DataError(
            "the file is a damaged or cut-off archive",
            where=f"{source}, after row {count}",
            found=err,
            do="fetch the file again; nothing of it was used",
        ) from err
    except OSError as err:
        raise DataError(
            "the file can't be read",
            where=f"{source}, after row {count}",
            found=err.strerror or err,
        ) from err


def reader_of(path: Path, source: str, header: TableHeader | None = None) -> Reader:
    """Return the reader of a file's format.

    Args:
        path: the file.
        source: its name in messages.
        header: what is known of the columns of a csv or tsv file.

    Raises:
        DataError: its name has no known suffix.
    """
    suffix = data_suffix(path)
    if suffix is None:
        raise DataError(
            "the file's format is not known",
            where=source,
            found=f"a name ending in {''.join(path.suffixes) or 'no suffix'}",
            expected=", ".join(DATA_SUFFIXES) + ", each also .gz or .zst",
            do="rename the file after its format, or convert it to .jsonl",
        )
    if suffix in _TABLE_READERS:
        return partial(_TABLE_READERS[suffix], header=header or TableHeader())
    return _READERS[suffix]
