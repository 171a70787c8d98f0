"""Readers of column-wise tables: parquet and Arrow IPC (`.arrow`, `.feather`)."""

import contextlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, BinaryIO

from swiftcore.data.readers.lines import Parsed
from swiftcore.data.readers.streams import seekable
from swiftcore.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 1024
_COLUMN_BUFFER_BYTES = 2**20
_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"


def read_parquet(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one dict a row; the line is the row's number, from 1."""
    return read_row_groups(stream, source, None, 1)


def read_row_groups(
    stream: BinaryIO, source: str, groups: list[int] | None, first_row: int
) -> Iterator[Parsed]:
    """Yield the rows of some row groups of a parquet file, or of all; counted from `first_row`."""
    import pyarrow.parquet as pq

    with seekable(stream, source) as file, _damage_reported(source):
        table = pq.ParquetFile(file, buffer_size=_COLUMN_BUFFER_BYTES)
        _require_distinct(table.schema_arrow, source)
        batches = table.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups)
        yield from _rows(batches, first_row)


def read_arrow(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one dict a row of an Arrow IPC file or stream; the line is the row's number."""
    import pyarrow as pa

    with seekable(stream, source) as file, _damage_reported(source):
        magic = file.read(len(_FILE_MAGIC))
        file.seek(0)
        if not magic:
            return
        if magic.startswith(_FEATHER_1_MAGIC):
            raise DataError(
                "the file is in the first feather format, which is not read",
                where=source,
                expected="an Arrow IPC file or stream",
                do="write it again as .parquet or .arrow",
            )
        if magic == _FILE_MAGIC:
            table = pa.ipc.open_file(file)
            batches = (table.get_batch(index) for index in range(table.num_record_batches))
        else:
            _require_end_mark(file, source)
            table = pa.ipc.open_stream(file)
            batches = iter(table)
        _require_distinct(table.schema, source)
        yield from _rows(batches, 1)


def _rows(batches: "Iterator[pa.RecordBatch]", first_row: int) -> Iterator[Parsed]:
    number = first_row
    for batch in batches:
        nested = _nested_names(batch.schema)
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            for row in batch.slice(start, _BATCH_ROWS).to_pylist():
                for name in nested:
                    row[name] = _without_nulls(row[name])
                yield Parsed(number, row)
                number += 1


def _nested_names(schema: "pa.Schema") -> list[str]:
    import pyarrow as pa

    return [field.name for field in schema if pa.types.is_nested(field.type)]


def _without_nulls(value: object) -> object:
    """Drop null members of nested structs: tables add them where other rows have the key."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _require_distinct(schema: "pa.Schema", source: str) -> None:
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise DataError(
            "a column stands in the table more than once",
            where=source,
            found=f"column {repeated[0]!r}",
            expected="each column name once",
            do="rename or drop one of them and write the file again",
        )


def _require_end_mark(file: IO[bytes], source: str) -> None:
    """A stream cut between two batches looks whole; only its end mark tells."""
    file.seek(0, 2)
    file.seek(max(file.tell() - 4, 0))
    ends = file.read(4) == bytes(4)
    file.seek(0)
    if not ends:
        raise DataError(
            "the Arrow stream has no end mark: it is cut off, or no Arrow data",
            where=source,
            do="fetch or write the file again; nothing of it was used",
        )


@contextlib.contextmanager
def _damage_reported(source: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as err:
        raise DataError(
            "the file is damaged, or not what its name says",
            where=source,
            found=next(iter(str(err).splitlines()), type(err).__name__),
            do="fetch or write the file again; nothing of it was used",
        ) from err
