"""A dataset on disk: one parquet file a split, readable by any parquet tool (see `columns`)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.data.columns import LINE_COLUMN, METADATA_KEY, SOURCE_COLUMN, Row, schema_of
from swiftcore.data.shards import ShardedRows
from swiftcore.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

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


def load_rows(dataset_dir: Path, split: str) -> list[Row]:
    """Return the standard rows of one split, in order; a column a row lacks is absent from it.

    Raises:
        DataError: there is no such split, or its file is damaged.
    """
    table = _read_table(dataset_dir, split)
    encoded = _json_columns(table.schema, _split_path(dataset_dir, split))
    names = [name for name in table.column_names if name not in (SOURCE_COLUMN, LINE_COLUMN)]
    columns = [(name, name in encoded, table.column(name).to_pylist()) for name in names]
    return [_row_at(columns, place) for place in range(table.num_rows)]


def row_origins(dataset_dir: Path, split: str) -> list[str]:
    """Return `file:line` of each row of a split, to trace a row back to its source.

    Raises:
        DataError: the split or `report.json` is missing or damaged.
    """
    table = _read_table(dataset_dir, split)
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


def _read_table(dataset_dir: Path, split: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    try:
        return pq.read_table(path)
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
