"""Rows as Arrow columns: the layout of a dataset's parquet files and of the shards on the way.

A column of one scalar type is stored as that type; every other column (messages above all) as JSON
text, so arbitrary keys and their order survive. Which columns are JSON stands in the schema's
metadata. Two columns tell where a row comes from: `__source`, the position of its file in
`report.json`, and `__line`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from swiftcore.data.rows.messages import json_text

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, object]
Kind = Literal["text", "json", "bool", "int", "float"]
Kinds = dict[str, Kind]

SOURCE_COLUMN = "__source"
LINE_COLUMN = "__line"
METADATA_KEY = b"swiftcore"
DIGEST_BYTES = 16

_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A standard row ready to be stored.

    Args:
        row: the standard row.
        texts: the JSON text of each of its columns.
        source: position of its file among the source files.
        line: line of that file, from 1.
    """

    row: Row
    texts: dict[str, str]
    source: int
    line: int

    def digest(self) -> bytes:
        """Return a digest of the content: equal for equal columns, in whatever order they stand."""
        parts = "\0".join(f"{name}={self.texts[name]}" for name in sorted(self.texts))
        return hashlib.blake2b(parts.encode(), digest_size=DIGEST_BYTES).digest()


def encode_row(row: Row, source: int = 0, line: int = 0) -> EncodedRow:
    """Return a row with the JSON text of its columns.

    Raises:
        RejectedRow: a column has no JSON form.
    """
    return EncodedRow(row, {name: json_text(row[name], name) for name in row}, source, line)


def column_kinds(rows: Iterable[EncodedRow]) -> Kinds:
    """Return how each column of these rows is stored."""
    kinds: Kinds = {}
    for encoded in rows:
        for name, value in encoded.row.items():
            kind = _kind(value)
            if kinds.setdefault(name, kind) != kind:
                kinds[name] = "json"
    return kinds


def joined_kinds(parts: Iterable[Mapping[str, Kind]]) -> Kinds:
    """Return how columns are stored that several shards share; sorted by name."""
    joined: Kinds = {"messages": "json"}
    for kinds in parts:
        for name, kind in kinds.items():
            if joined.setdefault(name, kind) != kind:
                joined[name] = "json"
    return {name: joined[name] for name in sorted(joined)}


def schema_of(kinds: Kinds) -> "pa.Schema":
    """Return the Arrow schema of rows with these columns."""
    import pyarrow as pa

    fields = [pa.field(name, _arrow_type(kind)) for name, kind in kinds.items()]
    fields += [pa.field(SOURCE_COLUMN, pa.int32()), pa.field(LINE_COLUMN, pa.int64())]
    json_columns = [name for name, kind in kinds.items() if kind == "json"]
    metadata = {METADATA_KEY: json.dumps({"schema": 1, "json_columns": json_columns}).encode()}
    return pa.schema(fields, metadata=metadata)


def to_table(rows: Sequence[EncodedRow], kinds: Kinds) -> "pa.Table":
    """Return rows as a table with the given columns; a column a row lacks is null there."""
    import pyarrow as pa

    schema = schema_of(kinds)
    columns = [
        pa.array(
            [r.texts.get(name) for r in rows]
            if kind == "json"
            else [r.row.get(name) for r in rows],
            schema.field(name).type,
        )
        for name, kind in kinds.items()
    ]
    columns.append(pa.array([r.source for r in rows], pa.int32()))
    columns.append(pa.array([r.line for r in rows], pa.int64()))
    return pa.Table.from_arrays(columns, schema=schema)


def recast(table: "pa.Table", kinds: Kinds, wanted: Kinds) -> "pa.Table":
    """Return a table of one shard with the columns that all shards together need.

    Args:
        table: rows stored with `kinds`.
        kinds: how the shard stores its columns.
        wanted: what `joined_kinds` made of the shards' kinds.
    """
    import pyarrow as pa

    schema = schema_of(wanted)
    columns = []
    for name, kind in wanted.items():
        if name not in kinds:
            columns.append(pa.nulls(table.num_rows, schema.field(name).type))
        elif kinds[name] == kind:
            columns.append(table.column(name))
        else:
            texts = (None if v is None else json_text(v, name) for v in table[name].to_pylist())
            columns.append(pa.array(texts, pa.string()))
    columns += [table.column(SOURCE_COLUMN), table.column(LINE_COLUMN)]
    return pa.Table.from_arrays(columns, schema=schema)


def _kind(value: object) -> Kind:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and abs(value) <= _MAX_INT64:
        return "int"
    return "float" if isinstance(value, float) else "json"


def _arrow_type(kind: Kind) -> "pa.DataType":
    import pyarrow as pa

    return {
        "text": pa.string(),
        "json": pa.string(),
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
    }[kind]
