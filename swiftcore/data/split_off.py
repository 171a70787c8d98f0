"""Training rows that hold text of rows that were split off from them for validation.

Which rows are split off is known only when all rows are, so they are compared afterwards, with the
good rows as they lie on disk, block by block and in as many processes as there are.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from swiftcore.data.cleaning.contamination import ContaminationIndex, Match
from swiftcore.data.cleaning.text import DIALOGUES
from swiftcore.data.pool import Pool
from swiftcore.data.preparation import index_at, write_index
from swiftcore.data.shards import ShardedRows

if TYPE_CHECKING:
    import numpy as np

_BLOCK_ROWS = 2000
# Little is done before other processes have started.
_BLOCKS_ALONE = 4


@dataclass(frozen=True)
class Block:
    """Rows to compare.

    Args:
        index: file of the index of the rows that were split off.
        columns: their dialogues as they are stored, column by column; None where a row has none.
        encoded: the columns that are stored as JSON.
    """

    index: Path
    columns: dict[str, list[str | None]]
    encoded: frozenset[str]


def compare_block(block: Block) -> list[Match | None]:
    """Return what each row of a block shares with a row that was split off."""
    index = index_at(block.index)
    assert index is not None
    matches: list[Match | None] = []
    for values in zip(*block.columns.values(), strict=True):
        row = {
            name: json.loads(text) if name in block.encoded else text
            for name, text in zip(block.columns, values, strict=True)
            if text is not None
        }
        matches.append(index.check(row))
    return matches


def shared_with_split_off(
    rows: ShardedRows,
    train: "np.ndarray",
    split_off: "np.ndarray",
    ngram: int,
    folder: Path,
    pool: Pool,
) -> Iterator[tuple[int, Match]]:
    """Yield the place of each training row that holds text of a row that was split off, and what.

    Args:
        rows: all good rows.
        train: places of the training rows.
        split_off: places of the rows that were split off.
        ngram: units in a row that count.
        folder: for the index, which worker processes read.
        pool: who compares.
    """
    index = ContaminationIndex.from_rows(rows.messages(split_off), ngram)
    path = write_index(index, folder)
    starts = range(0, len(train), _BLOCK_ROWS)
    blocks = _Blocks(rows, train, path)
    if len(blocks) <= _BLOCKS_ALONE and pool.ray_address is None:
        pool = Pool()
    for start, matches in zip(starts, pool.map(compare_block, blocks), strict=True):
        for offset, match in enumerate(matches):
            if match is not None:
                yield int(train[start + offset]), match


class _Blocks(Sequence[Block]):
    """The training rows in blocks, read one by one: all together would fill the memory."""

    def __init__(self, rows: ShardedRows, train: "np.ndarray", index: Path) -> None:
        self._rows = rows
        self._train = train
        self._index = index
        self._names = [name for name in DIALOGUES if name in rows.kinds]

    def __len__(self) -> int:
        return -(-len(self._train) // _BLOCK_ROWS)

    @overload
    def __getitem__(self, number: int) -> Block: ...
    @overload
    def __getitem__(self, number: slice) -> list[Block]: ...
    def __getitem__(self, number: int | slice) -> Block | list[Block]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        places = self._train[number * _BLOCK_ROWS : (number + 1) * _BLOCK_ROWS]
        table = self._rows.take(places)
        columns = {name: table.column(name).to_pylist() for name in self._names}
        encoded = frozenset(name for name in self._names if self._rows.kinds[name] == "json")
        return Block(self._index, columns, encoded)
