"""The encoded folder of a task: the columns of any other, and two more.

`input_ids` holds a row's texts one after the other, `sequence_lengths` the tokens of each, and
`targets` what their scores are held against. No token has a label of its own.
"""

from pathlib import Path
from typing import NamedTuple

from swiftcore.template.encoded_folder import ROWS_PER_GROUP, RowGroups
from swiftcore.template.encoding import NO_LOSS


class EncodedSample(NamedTuple):
    """A row of a task as tokens; `row` is its index in the dataset split."""

    row: int
    texts: list[list[int]]
    targets: list[float]

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.texts))


class SampleWriter(RowGroups):
    """Writes encoded rows of a task."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        more = [
            ("sequence_lengths", pa.list_(pa.int32())),
            ("targets", pa.list_(pa.float32())),
        ]
        super().__init__(path, more)
        self._rows: list[EncodedSample] = []

    def add(self, sample: EncodedSample) -> None:
        """Append one row."""
        self._rows.append(sample)
        if len(self._rows) >= ROWS_PER_GROUP:
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
