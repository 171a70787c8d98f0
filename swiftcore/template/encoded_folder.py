"""The encoded folder: parquet files of token ids, labels and weights."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

from swiftcore.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 2048
# Of rows whose texts are scored: see `tasks.folder`.
_TASK_COLUMNS = ("sequence_lengths", "targets")


class TokenizedRow(NamedTuple):
    """One row's tokens as plain numbers; `row` is its index in the dataset split."""

    row: int
    input_ids: Sequence[int]
    labels: Sequence[int]
    loss_scale: Sequence[float] | None
    num_labels: int


class RowGroups(ABC):
    """A parquet file of encoded rows, written a group at a time; equal rows give equal bytes.

    Args:
        path: the file.
        more: columns beside those that every encoded row has.
    """

    def __init__(self, path: Path, more: "Sequence[tuple[str, pa.DataType]]" = ()) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema(
            [
                ("input_ids", pa.list_(pa.int32())),
                ("labels", pa.list_(pa.int32())),
                ("loss_scale", pa.list_(pa.float32())),
                ("row", pa.int64()),
                *more,
            ]
        )
        self._writer = pq.ParquetWriter(path, self._schema, version="2.6", compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None:
            self._flush()
        self._writer.close()

    @abstractmethod
    def _flush(self) -> None:
        """Write the rows that were added since the last group."""


class EncodedWriter(RowGroups):
    """Writes encoded rows of text."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._begin()

    def add(self, encoded: TokenizedRow) -> None:
        """Append one encoded row."""
        self._input_ids.add(encoded.input_ids)
        self._labels.add(encoded.labels)
        self._loss_scale.add(encoded.loss_scale)
        self._rows.append(encoded.row)
        if len(self._rows) >= ROWS_PER_GROUP:
            self._flush()

    def _begin(self) -> None:
        self._input_ids = _ListColumn("i")
        self._labels = _ListColumn("i")
        self._loss_scale = _ListColumn("f")
        self._rows = array("q")

    def _flush(self) -> None:
        import numpy as np
        import pyarrow as pa

        columns = [self._input_ids, self._labels, self._loss_scale]
        arrays = [column.to_arrow() for column in columns]
        arrays.append(pa.array(np.frombuffer(self._rows, dtype=np.int64)))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._begin()


class _ListColumn:
    """Lists of numbers in one buffer, which Arrow takes as it is: a tenth of the time of lists."""

    def __init__(self, typecode: str) -> None:
        self._values = array(typecode)
        self._offsets = array("i", [0])
        self._missing: list[bool] = []

    def add(self, values: Sequence[float] | None) -> None:
        if isinstance(values, list):
            self._values.fromlist(values)  # half the time of extend
        elif values is not None:
            self._values.extend(values)
        self._offsets.append(len(self._values))
        self._missing.append(values is None)

    def to_arrow(self) -> "pa.ListArray":
        import numpy as np
        import pyarrow as pa

        # numpy reads the buffers; pyarrow would take an array for any sequence of Python numbers.
        return pa.ListArray.from_arrays(
            pa.array(np.frombuffer(self._offsets, dtype=np.int32)),
            pa.array(np.frombuffer(self._values, dtype=self._values.typecode)),
            mask=pa.array(self._missing, pa.bool_()),
        )


class EncodedRows(Sequence[dict[str, Any]]):
    """Encoded rows that stay in Arrow buffers until they are asked for."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(path, memory_map=True)
        self._columns = {
            name: table.column(name).combine_chunks()
            for name in ("input_ids", "labels", "loss_scale", "row")
        }
        self._extra = {
            name: table.column(name).combine_chunks()
            for name in _TASK_COLUMNS
            if name in table.column_names
        }
        self.lengths: list[int] = self._columns["input_ids"].value_lengths().to_pylist()

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        return {
            "input_ids": self._list("input_ids", place),
            "labels": self._list("labels", place),
            "loss_scale": self._list("loss_scale", place),
            "row": self._columns["row"][place].as_py(),
            **{name: column[place].as_py() for name, column in self._extra.items()},
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))

    def _list(self, name: str, place: int) -> list[Any] | None:
        values = self._columns[name][place].values
        return None if values is None else values.to_numpy(zero_copy_only=False).tolist()


def load_encoded(folder: Path, split: str) -> EncodedRows:
    """Return the encoded rows of a split as a sequence of dicts.

    Each has `input_ids`, `labels`, `loss_scale` (None: all weights 0 or 1) and `row`.

    Raises:
        DataError: the folder has no such split, or the file is damaged.
    """
    import pyarrow as pa

    path = Path(folder) / f"{split}.parquet"
    try:
        return EncodedRows(path)
    except FileNotFoundError as err:
        raise DataError(
            "there are no encoded rows",
            where=path,
            found="no such file",
            expected="train.parquet or val.parquet of the template stage",
            do="run the template stage",
        ) from err
    except (pa.ArrowInvalid, KeyError, OSError) as err:
        raise DataError(
            "the encoded rows can't be read",
            where=path,
            found=str(err)[:200],
            expected="a file written by the template stage",
            do="run the template stage again",
        ) from err
