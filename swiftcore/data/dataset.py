"""A dataset on disk: one parquet file a split, readable by any parquet tool.

A column of one scalar type is stored as that type; every other column (messages above all) as JSON
text, so arbitrary keys and their order survive. The file's metadata names the JSON columns. Two
columns tell where a row comes from: `__source`, the position of its file in `report.json`, and
`__line`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, object]

SOURCE_COLUMN = "__source"
LINE_COLUMN = "__line"

_METADATA_KEY = b"swiftcore"
_ROW_GROUP_ROWS = 4096
_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A standard row with its origin.

    Args:
        row: the standard row.
        source: position of its file among the source files.
        line: line of that file, from 1.
    """

    row: Row
    source: int
    line: int


def write_split(rows: Sequence[StoredRow], path: Path) -> None:
    """Write one split; the same rows make the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = _column_kinds(rows)
    types = {"text": pa.string(), "json": pa.string(), "bool": pa.bool_()}
    types |= {"int": pa.int64(), "float": pa.float64()}
    fields = [pa.field(name, types[kind]) for name, kind in kinds.items()]
    fields += [pa.field(SOURCE_COLUMN, pa.int32()), pa.field(LINE_COLUMN, pa.int64())]
    json_columns = [name for name, kind in kinds.items() if kind == "json"]
    metadata = {_METADATA_KEY: json.dumps({"schema": 1, "json_columns": json_columns}).encode()}
    schema = pa.schema(fields, metadata=metadata)
    with pq.ParquetWriter(path, schema, version="2.6", compression="zstd") as writer:
        for start in range(0, len(rows), _ROW_GROUP_ROWS):
            writer.write_table(_table(rows[start : start + _ROW_GROUP_ROWS], kinds, schema))


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
    if _METADATA_KEY not in metadata:
        raise DataError(
            "the file was not written by the ingest stage",
            where=path,
            do="give it as a source in the recipe's data section instead",
        )
    return set(json.loads(metadata[_METADATA_KEY])["json_columns"])


def _row_at(columns: list[tuple[str, bool, list[object]]], place: int) -> Row:
    row: Row = {}
    for name, is_json, values in columns:
        value = values[place]
        if value is not None:
            row[name] = json.loads(value) if is_json and isinstance(value, str) else value
    return row


def _column_kinds(rows: Sequence[StoredRow]) -> dict[str, str]:
    kinds: dict[str, str] = {"messages": "json"}
    for stored in rows:
        for name, value in stored.row.items():
            kind = _kind(value)
            if kinds.setdefault(name, kind) != kind:
                kinds[name] = "json"
    return {name: kinds[name] for name in sorted(kinds)}


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and abs(value) <= _MAX_INT64:
        return "int"
    return "float" if isinstance(value, float) else "json"


def _table(rows: Sequence[StoredRow], kinds: dict[str, str], schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    columns = [
        pa.array(_values(rows, name, kind), schema.field(name).type) for name, kind in kinds.items()
    ]
    columns.append(pa.array([row.source for row in rows], pa.int32()))
    columns.append(pa.array([row.line for row in rows], pa.int64()))
    return pa.Table.from_arrays(columns, schema=schema)


def _values(rows: Sequence[StoredRow], name: str, kind: str) -> Iterator[object]:
    for stored in rows:
        value = stored.row.get(name)
        if kind == "json" and value is not None:
            value = json.dumps(value, ensure_ascii=False)
        yield value
