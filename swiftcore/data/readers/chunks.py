"""Parts of files, so that several processes can read one file; together they are all its rows."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from swiftcore.data.readers.columnar import read_row_groups
from swiftcore.data.readers.files import SourceRow, data_suffix, read_rows, reader_of, rows_by
from swiftcore.data.readers.json_rows import read_jsonl_part
from swiftcore.data.readers.lines import BYTE_ORDER_MARK, Parsed
from swiftcore.data.readers.streams import COMPRESSIONS, Stamp, open_data
from swiftcore.data.readers.tables import TableHeader
from swiftcore.errors import DataError

TARGET_BYTES = 32 * 2**20

_BLOCK_BYTES = 2**20
_LINE_FORMATS = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class FileChunk:
    """A part of one file, to be read with `read_chunk` here or in another process.

    Args:
        path: the file.
        name: the file as rows and messages name it.
        start: first byte, or first row group of a parquet file.
        end: byte, or row group, behind the last; None means the whole file in one part.
        first_line: line, or row number, at `start`.
        num_bytes: about how much there is to read.
        stamp: state of the file when it was cut.
        problem: why nothing of the file can be read; it then counts as one bad row.
    """

    path: Path
    name: str
    start: int = 0
    end: int | None = None
    first_line: int = 1
    num_bytes: int = 0
    stamp: Stamp | None = None
    problem: str | None = None


def file_chunks(
    path: Path, name: str | None = None, target_bytes: int = TARGET_BYTES
) -> list[FileChunk]:
    """Cut a file into parts whose rows, one part after the other, are those of `read_rows`.

    Uncompressed JSON lines are cut between lines, which takes one quick pass over the file, and
    parquet files between row groups. Everything else is one part.

    Args:
        path: the file.
        name: its name in rows and messages.
        target_bytes: size a part should have; a part ends at the first border behind it.

    Raises:
        DataError: the file is no known format or can't be read, or it is no parquet file.
    """
    source = name or str(path)
    reader_of(path, source)
    chunks: list[FileChunk] = []
    if not path.name.lower().endswith(COMPRESSIONS):
        if data_suffix(path) in _LINE_FORMATS:
            chunks = _cut_lines(path, source, target_bytes)
        elif data_suffix(path) == ".parquet":
            chunks = _cut_row_groups(path, source, target_bytes)
    return chunks if len(chunks) > 1 else [_whole(path, source)]


def read_chunk(chunk: FileChunk, header: TableHeader | None = None) -> Iterator[SourceRow]:
    """Yield the rows of one part of a file.

    Args:
        chunk: the part.
        header: what is known of the columns of a csv or tsv file.

    Raises:
        DataError: as `read_rows`; the file must not have changed since it was cut.
    """
    if chunk.problem is not None:
        return iter([SourceRow("", chunk.name, 1, chunk.problem)])
    if chunk.end is None:
        return read_rows(chunk.path, chunk.name, header)
    is_table = data_suffix(chunk.path) == ".parquet"

    def part(stream: BinaryIO, source: str) -> Iterator[Parsed]:
        assert chunk.end is not None
        if is_table:
            groups = list(range(chunk.start, chunk.end))
            return read_row_groups(stream, source, groups, chunk.first_line)
        stream.seek(chunk.start)
        return read_jsonl_part(stream, chunk.first_line, chunk.end - chunk.start)

    return rows_by(part, chunk.path, chunk.name, chunk.stamp)


def _whole(path: Path, source: str) -> FileChunk:
    try:
        return FileChunk(path, source, num_bytes=path.stat().st_size)
    except OSError as err:
        raise DataError("the file can't be read", where=source, found=err.strerror or err) from err


def _cut_lines(path: Path, source: str, target_bytes: int) -> list[FileChunk]:
    with open_data(path, source) as stream:
        stamp = Stamp.of(stream.fileno())
        borders = _line_borders(stream, target_bytes)
        if borders is None:
            return []
    return [
        FileChunk(path, source, start, end, line, end - start, stamp)
        for (start, line), (end, _) in itertools.pairwise(borders)
    ]


def _line_borders(stream: BinaryIO, target_bytes: int) -> list[tuple[int, int]] | None:
    """Return (byte, line) of each part's start and of the end; None when all lines are blank."""
    borders, offset, line, wanted = [(0, 1)], 0, 1, target_bytes
    blank = True
    while block := stream.read(_BLOCK_BYTES):
        blank = blank and _is_blank(block)
        counted = 0
        while wanted <= offset + len(block):
            at = block.find(b"\n", max(wanted - 1 - offset, counted))
            if at < 0:
                break
            line += block.count(b"\n", counted, at + 1)
            counted = at + 1
            borders.append((offset + counted, line))
            wanted = offset + counted + target_bytes
        line += block.count(b"\n", counted)
        offset += len(block)
    if borders[-1][0] != offset:
        borders.append((offset, line))
    return None if blank else borders


def _is_blank(block: bytes) -> bool:
    return block.isspace() or not block.removeprefix(BYTE_ORDER_MARK).strip()


def _cut_row_groups(path: Path, source: str, target_bytes: int) -> list[FileChunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_data(path, source) as stream:
        stamp = Stamp.of(stream.fileno())
        try:
            metadata = pq.ParquetFile(stream).metadata
        except (pa.ArrowException, OSError):
            return []  # reading the whole file says what is wrong with it
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks: list[FileChunk] = []
    start, rows, size = 0, 0, 0
    first_row = 1
    for index, group in enumerate(groups, start=1):
        rows += group.num_rows
        size += group.total_byte_size
        if size >= target_bytes or index == len(groups):
            chunks.append(FileChunk(path, source, start, index, first_row, size, stamp))
            start, first_row, rows, size = index, first_row + rows, 0, 0
    return chunks
