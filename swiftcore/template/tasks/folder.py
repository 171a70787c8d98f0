"""The encoded folder of a task: the columns of any other, and two more.

`input_ids` holds a row's texts one after the other, `sequence_lengths` the tokens of each, and
`targets` what their scores are held against. No token has a label of its own.
"""

from pathlib import Path
from typing import NamedTuple

from swiftcore.template.encoding import NO_LOSS

_ROWS_PER_GROUP = 2048


class EncodedSample(NamedTuple):
    """A row of a task as tokens; `row` is its index in the dataset split."""

    row: int
    texts: list[list[int]]
    targets: list[float]

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.texts))


class SampleWriter:
    """Writes encoded rows of a task in groups; equal rows give equal bytes."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema(
            [
                ("input_ids", pa.list_(pa.int32())),
                ("labels", pa.list_(pa.int32())),
                ("loss_scale", pa.list_(pa.float32())),
                ("row", pa.int64()),
                ("sequence_lengths", pa.list_(pa.int32())),
                ("targets", pa.list_(pa.float32())),
            ]
        )
        self._writer = pq.ParquetWriter(path, self._schema, version="2.6", compression="zstd")
        self._rows: list[EncodedSample] = []

    def __enter__(self) -> "SampleWriter":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None:
            self._flush()
        self._writer.close()

    def add(self, sample: EncodedSample) -> None:
        """Append one row."""
        self._rows.append(sample)
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {
            "input_ids": [[token for text in row.texts for token in text] for row in self._rows],
            "labels": [[NO_LOSS] * row.num_tokens for row in self._rows],
            "loss_scale": [None] * len(self._rows),
            "row": [row.row for row in self._rows],
            "sequence_lengths": [[len(text) for text in row.texts] for row in self._rows],
            "targets": [row.targets for row in self._rows],
        }
        self._writer.write_table(pa.Table.from_pydict(columns, schema=self._schema))
        self._rows = []
