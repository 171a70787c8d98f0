"""The first half of an ingest, done chunk by chunk: raw rows become shards of standard rows.

A shard is a few thousand good rows in one Arrow file on disk, beside what was noticed about the
rows on the way: their digests and sizes, the bad ones, the columns. Shards don't depend on each
other, so they are made in any number of processes; what depends on all rows (duplicates, splits,
order) is decided afterwards on their digests alone.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.data.columns import (
    EncodedRow,
    Kinds,
    Row,
    column_kinds,
    encode_row,
    recast,
    to_table,
)
from swiftcore.data.quarantine import RejectedRow, quarantine_line
from swiftcore.data.readers.chunks import FileChunk, read_chunk
from swiftcore.data.rows.formats import RowNormalizer

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MAX_SHARD_ROWS = 8192
MAX_SHARD_CHARACTERS = 16 * 2**20
_ROWS_BETWEEN_NEWS = 1000


@dataclass(frozen=True)
class Preparation:
    """How a raw row becomes one that may be used; all that a worker process needs to know.

    Args:
        columns: `{source name: standard name}`, renamed first.
        remove_unused_columns: keep only the standard columns.
        strict: stop at the first bad row.
    """

    columns: dict[str, str] | None = None
    remove_unused_columns: bool = True
    strict: bool = False


@dataclass(frozen=True)
class ShardTask:
    """One chunk of a source file, and where its shards go.

    Args:
        chunk: what to read.
        source: position of its file among the source files.
        folder: existing folder for the shards.
        number: of the task; its shards are named after it.
        preparation: what to do with each row.
    """

    chunk: FileChunk
    source: int
    folder: Path
    number: int
    preparation: Preparation


@dataclass
class ColumnNews:
    """What was noticed about the columns of raw rows.

    Args:
        seen: columns the rows had, after renaming.
        renamed: names in `data.columns` that a row had.
        unused: columns that were dropped, with the number of rows that had each.
        clashes: columns of which each could have been the same thing, so that none was taken.
    """

    seen: set[str] = field(default_factory=set)
    renamed: set[str] = field(default_factory=set)
    unused: Counter[str] = field(default_factory=Counter)
    clashes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, other: "ColumnNews") -> None:
        """Take in what was noticed elsewhere."""
        self.seen |= other.seen
        self.renamed |= other.renamed
        self.unused += other.unused
        self.clashes |= other.clashes


@dataclass
class Shard:
    """Rows of one chunk that were prepared together.

    Args:
        path: Arrow file of the good rows; absent when there are none.
        source: position of the file the rows come from.
        num_rows: rows read.
        num_good: rows in the Arrow file.
        kinds: how its columns are stored.
        digests: content digest of each good row, one after the other.
        sizes: characters of each good row's stored text, as 8-byte integers.
        answered: one byte a good row, 1 when it holds an answer to learn from.
        quarantine: lines for `quarantine.jsonl`.
        bad: reason and `file:line` of each bad row.
        columns: what was noticed about columns.
    """

    path: Path
    source: int
    num_rows: int = 0
    num_good: int = 0
    kinds: Kinds = field(default_factory=dict)
    digests: bytes = b""
    sizes: array = field(default_factory=lambda: array("q"))
    answered: bytes = b""
    quarantine: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    columns: ColumnNews = field(default_factory=ColumnNews)


def prepare_chunk(
    task: ShardTask, on_rows: Callable[[int], None] = lambda rows: None
) -> list[Shard]:
    """Read and prepare one chunk; return its shards in order.

    Args:
        task: what to read and where to write.
        on_rows: told now and then how many rows were read.

    Raises:
        DataError: the file is damaged as a whole.
    """
    return list(_Preparing(task, on_rows).shards())


class _Preparing:
    """State of one chunk on its way into shards."""

    def __init__(self, task: ShardTask, on_rows: Callable[[int], None]) -> None:
        self._task = task
        self._on_rows = on_rows
        self._normalizer = self._new_normalizer()
        self._num_shards = 0
        self._begin()

    def _new_normalizer(self) -> RowNormalizer:
        preparation = self._task.preparation
        return RowNormalizer(preparation.columns, preparation.remove_unused_columns)

    def _begin(self) -> None:
        name = f"{self._task.number:06d}-{self._num_shards:04d}.arrow"
        self._shard = Shard(self._task.folder / name, self._task.source)
        self._rows: list[EncodedRow] = []
        self._characters = 0

    def shards(self) -> Iterator[Shard]:
        rows_read = 0
        for raw in read_chunk(self._task.chunk):
            rows_read += 1
            if rows_read % _ROWS_BETWEEN_NEWS == 0:
                self._on_rows(rows_read)
            self._shard.num_rows += 1
            try:
                if raw.problem is not None:
                    raise RejectedRow(raw.problem)
                row = self._normalizer.standard_row(raw.row)
                encoded = encode_row(row, self._task.source, raw.line)
            except RejectedRow as err:
                self._set_aside(raw.source, raw.line, err.message, raw.row, raw.problem is None)
                if self._task.preparation.strict:
                    break
            else:
                self._rows.append(encoded)
                self._characters += sum(map(len, encoded.texts.values()))
            if self._shard.num_rows >= MAX_SHARD_ROWS or self._characters >= MAX_SHARD_CHARACTERS:
                yield self._finish()
        self._on_rows(rows_read)
        last = self._finish()
        last.columns = self._news()
        yield last

    def _news(self) -> ColumnNews:
        normalizer = self._normalizer
        return ColumnNews(
            set(normalizer.seen_columns()),
            set(normalizer.renamed),
            Counter(normalizer.unused_columns),
            dict(normalizer.clashes),
        )

    def _set_aside(self, source: str, line: int, reason: str, row: object, parsed: bool) -> None:
        text = quarantine_line(source, line, reason, row, parsed)
        self._characters += len(text)
        self._shard.quarantine.append(text)
        self._shard.bad.append((reason, f"{source}:{line}"))

    def _finish(self) -> Shard:
        import pyarrow as pa

        shard, rows = self._shard, self._rows
        if rows:
            shard.num_good = len(rows)
            shard.kinds = column_kinds(rows)
            shard.digests = b"".join(row.digest() for row in rows)
            shard.sizes = array("q", (sum(map(len, row.texts.values())) for row in rows))
            shard.answered = bytes(_has_answer(row.row) for row in rows)
            table = to_table(rows, shard.kinds)
            with pa.OSFile(str(shard.path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as w:
                w.write_table(table)
        self._num_shards += 1
        self._begin()
        return shard


class ShardedRows:
    """The good rows of all shards, by their place in reading order; read from disk when wanted.

    Args:
        shards: in reading order.
        kinds: columns of the tables that `take` returns, as `joined_kinds` gives them.
    """

    def __init__(self, shards: Sequence[Shard], kinds: Kinds) -> None:
        import numpy as np

        self._shards = [shard for shard in shards if shard.num_good]
        self.kinds = kinds
        self._ends = np.cumsum([shard.num_good for shard in self._shards], dtype=np.int64)

    def take(self, rows: "np.ndarray") -> "pa.Table":
        """Return the rows with these places, in this order, as a table in memory."""
        import numpy as np
        import pyarrow as pa

        shard_of = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(shard_of, kind="stable")
        borders = np.flatnonzero(np.diff(shard_of[order])) + 1
        tables = [
            self._take_from(int(shard_of[part[0]]), rows[part])
            for part in np.split(order, borders)
            if len(part)
        ]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_tables(tables).combine_chunks().take(pa.array(back))

    def _take_from(self, number: int, rows: "np.ndarray") -> "pa.Table":
        import pyarrow as pa

        shard = self._shards[number]
        first = int(self._ends[number]) - shard.num_good
        # Mapped for this moment only: the pages of all shards together would fill the memory.
        with pa.memory_map(str(shard.path)) as mapped:
            table = pa.ipc.open_file(mapped).read_all().take(pa.array(rows - first))
        return recast(table, shard.kinds, self.kinds)


def _has_answer(row: Row) -> bool:
    messages = row["messages"]
    return isinstance(messages, list) and any(
        message["role"] in ("assistant", "tool_call") for message in messages
    )
