"""A dataset on disk: one parquet file a split, readable by any parquet tool (see `columns`)."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.data.columns import LINE_COLUMN, METADATA_KEY, SOURCE_COLUMN, Row, schema_of
from swiftcore.data.shards import ShardedRows
from swiftcore.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

# Rows that are in memory at once while a split is written, and rows of one parquet row group.
_BLOCK_ROWS = 32_768
_BLOCK_CHARACTERS = 16 * 2**20
_ROW_GROUP_ROWS = 4096


def write_split(
    rows: ShardedRows, places: "np.ndarray", sizes: "np.ndarray", path: Path
) -> dict[str, int]:
    """Write the rows of one split; the same rows make the same bytes.

    Args:
        rows: all good rows.
        places: which of them, in which order.
        sizes: characters of every good row, to bound the memory.
        path: where to.

    Returns:
        number of rows that have each column.
    """
    import pyarrow.parquet as pq

    columns = dict.fromkeys(rows.kinds, 0)
    schema = schema_of(rows.kinds)
    with pq.ParquetWriter(path, schema, version="2.6", compression="zstd") as writer:
        for block in _blocks(places, sizes):
            table = rows.take(block)
            writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
            for name in columns:
                columns[name] += table.num_rows - table.column(name).null_count
    return columns


def _blocks(places: "np.ndarray", sizes: "np.ndarray") -> "Iterator[np.ndarray]":
    """Cut the places where the rows in memory would become too many or too long."""
    import numpy as np

    total = np.cumsum(sizes[places])
    start = 0
    while start < len(places):
        before = total[start - 1] if start else 0
        fits = int(np.searchsorted(total, before + _BLOCK_CHARACTERS, side="right"))
        end = max(min(fits, start + _BLOCK_ROWS), start + 1)
        yield places[start:end]
        start = end


def has_split(dataset_dir: Path, split: str) -> bool:
    """Tell whether a dataset folder holds a split."""
    return _split_path(dataset_dir, split).is_file()


class SplitRows:
    """The standard rows of one split, read from disk as they are wanted.

    Raises:
        DataError: there is no such split, or its file is damaged.
    """

    def __init__(self, dataset_dir: Path, split: str) -> None:
        self._path = _existing_split(dataset_dir, split)
        self._file = self._checked(lambda: _open_parquet(self._path))
        self._encoded = _json_columns(self._file.schema_arrow, self._path)
        self._names = [
            name
            for name in self._file.schema_arrow.names
            if name not in (SOURCE_COLUMN, LINE_COLUMN)
        ]

    def __len__(self) -> int:
        return self._file.metadata.num_rows

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows before compression."""
        metadata = self._file.metadata
        groups = range(metadata.num_row_groups)
        return sum(metadata.row_group(place).total_byte_size for place in groups)

    def group_sizes(self) -> list[int]:
        """Return the number of rows of each row group of the file."""
        metadata = self._file.metadata
        return [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]

    def batches(self, size: int, *, row_groups: Sequence[int] | None = None) -> Iterator[list[Row]]:
        """Yield the rows in order, `size` at a time; a column a row lacks is absent from it.

        Args:
            size: most rows of a batch.
            row_groups: only the rows of these row groups, which must ascend; default: all.
        """
        batches = self._file.iter_batches(
            batch_size=size,
            columns=self._names,
            row_groups=None if row_groups is None else list(row_groups),
        )
        while (batch := self._checked(lambda: next(batches, None))) is not None:
            yield self._rows(batch)

    def take(self, places: Sequence[int]) -> list[Row]:
        """Return the rows with these places, which must ascend."""
        found: list[Row] = []
        first, wanted = 0, list(places)
        for number in range(self._file.num_row_groups):
            num_rows = self._file.metadata.row_group(number).num_rows
            inside = [place - first for place in wanted if first <= place < first + num_rows]
            if inside:
                group = self._checked(
                    lambda n=number: self._file.read_row_group(n, columns=self._names)
                )
                found += self._rows(group.take(inside))
            first += num_rows
        return found

    def _rows(self, batch: "pa.RecordBatch | pa.Table") -> list[Row]:
        columns = [
            (name, name in self._encoded, batch.column(name).to_pylist()) for name in self._names
        ]
        return [_row_at(columns, place) for place in range(batch.num_rows)]

    def _checked(self, read: Callable[[], Any]) -> Any:
        import pyarrow as pa

        try:
            return read()
        except (pa.ArrowException, OSError) as err:
            raise DataError("the split's file is damaged", where=self._path, found=err) from err


def load_rows(dataset_dir: Path, split: str) -> list[Row]:
    """Return the standard rows of one split, in order; a column a row lacks is absent from it.

    Raises:
        DataError: there is no such split, or its file is damaged.
    """
    rows = SplitRows(dataset_dir, split)
    return [row for batch in rows.batches(_ROW_GROUP_ROWS) for row in batch]


def row_origins(dataset_dir: Path, split: str) -> list[str]:
    """Return `file:line` of each row of a split, to trace a row back to its source.

    Raises:
        DataError: the split or `report.json` is missing or damaged.
    """
    table = _read_columns(dataset_dir, split, [SOURCE_COLUMN, LINE_COLUMN])
    report = Path(dataset_dir) / "report.json"
    try:
        files = json.loads(report.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as err:
        raise DataError("the dataset's report can't be read", where=report, found=err) from err
    sources = table.column(SOURCE_COLUMN).to_pylist()
    lines = table.column(LINE_COLUMN).to_pylist()
    return [f"{files[source]}:{line}" for source, line in zip(sources, lines, strict=True)]


def _split_path(dataset_dir: Path, split: str) -> Path:
    if split not in ("train", "val", "test"):
        raise DataError("no such split", found=split, expected="train, val or test")
    return Path(dataset_dir) / f"{split}.parquet"


def _existing_split(dataset_dir: Path, split: str) -> Path:
    path = _split_path(dataset_dir, split)
    if not path.is_file():
        there = sorted(file.stem for file in Path(dataset_dir).glob("*.parquet"))
        raise DataError(
            "the dataset does not have this split",
            where=dataset_dir,
            found=", ".join(there) or "no split",
            expected=split,
            do="name sources for it in the recipe's data section",
        )
    return path


def _open_parquet(path: Path) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def _read_columns(dataset_dir: Path, split: str, names: list[str]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _existing_split(dataset_dir, split)
    try:
        return pq.read_table(path, columns=names)
    except (pa.ArrowException, OSError) as err:
        raise DataError("the split's file is damaged", where=path, found=err) from err


def _json_columns(schema: "pa.Schema", path: Path) -> set[str]:
    metadata = schema.metadata or {}
    if METADATA_KEY not in metadata:
        raise DataError(
            "the file was not written by the ingest stage",
            where=path,
            do="give it as a source in the recipe's data section instead",
        )
    return set(json.loads(metadata[METADATA_KEY])["json_columns"])


def _row_at(columns: list[tuple[str, bool, list[object]]], place: int) -> Row:
    row: Row = {}
    for name, is_json, values in columns:
        value = values[place]
        if value is not None:
            row[name] = json.loads(value) if is_json and isinstance(value, str) else value
    return row
