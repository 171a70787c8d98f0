"""The first half of an ingest, done chunk by chunk: raw rows become shards of standard rows.

A shard is a few thousand good rows in one Arrow file on disk, beside what was noticed about the
rows on the way: their digests and sizes, the bad ones, the columns. Shards don't depend on each
other, so they are made in any number of processes; what depends on all rows (duplicates, splits,
order) is decided afterwards on their digests alone.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.data.cleaning.near_duplicates import NUM_PERMUTATIONS
from swiftcore.data.columns import (
    LINE_COLUMN,
    SOURCE_COLUMN,
    EncodedRow,
    Kinds,
    Row,
    column_kinds,
    recast,
    to_table,
)
from swiftcore.data.preparation import DroppedRow, Preparation, RowNews, RowPreparer
from swiftcore.data.quarantine import QUARANTINED, quarantine_line
from swiftcore.data.readers.chunks import FileChunk, read_chunk
from swiftcore.data.readers.files import SourceRow
from swiftcore.data.readers.tables import TableHeader
from swiftcore.data.rows.plan import KNOWN_COLUMNS
from swiftcore.data.sources.row_options import RowOptions
from swiftcore.recipe.sections import DataSection

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MAX_SHARD_ROWS = 8192
MAX_SHARD_CHARACTERS = 16 * 2**20
_ROWS_BETWEEN_NEWS = 1000


@dataclass(frozen=True)
class ShardTask:
    """One chunk of a source file, and where its shards go.

    Args:
        chunk: what to read.
        source: position of its file among the source files.
        folder: existing folder for the shards.
        number: of the task; its shards are named after it.
        preparation: what to do with each row.
        options: what the file's registration does to its rows first.
    """

    chunk: FileChunk
    source: int
    folder: Path
    number: int
    preparation: Preparation
    options: RowOptions = field(default_factory=RowOptions)


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
        quarantine: lines for `quarantine.jsonl`, one for each row that was dropped.
        dropped: fate, reason and `file:line` of each of them.
        fates: how many rows met each fate.
        news: what was counted about the rows of the whole chunk; in its last shard only.
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
    dropped: list[tuple[str, str, str]] = field(default_factory=list)
    fates: Counter[str] = field(default_factory=Counter)
    news: RowNews | None = None

    @property
    def signatures(self) -> Path:
        """File of the good rows' MinHash signatures, where they were asked for."""
        return self.path.with_suffix(".minhash")


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


def table_header(section: DataSection, options: RowOptions) -> TableHeader:
    """Return what is known of the columns of csv and tsv files before they are read.

    Args:
        section: the recipe's data section.
        options: what a file's registration says of it.
    """
    renamed = {name.lower() for name in (*(section.columns or {}), *options.columns)}
    # A function may read columns of any name.
    known = None if options.preprocess else KNOWN_COLUMNS | renamed
    return TableHeader(options.column_names or tuple(section.column_names), known)


class _Preparing:
    """State of one chunk on its way into shards."""

    def __init__(self, task: ShardTask, on_rows: Callable[[int], None]) -> None:
        self._task = task
        self._on_rows = on_rows
        self._preparer = RowPreparer(task.preparation)
        self._num_shards = 0
        self._begin()

    def _begin(self) -> None:
        name = f"{self._task.number:06d}-{self._num_shards:04d}.arrow"
        self._shard = Shard(self._task.folder / name, self._task.source)
        self._rows: list[EncodedRow] = []
        self._characters = 0

    def shards(self) -> Iterator[Shard]:
        rows_read = 0
        for raw in read_chunk(
            self._task.chunk, table_header(self._task.preparation.section, self._task.options)
        ):
            rows_read += 1
            if rows_read % _ROWS_BETWEEN_NEWS == 0:
                self._on_rows(rows_read)
            self._shard.num_rows += 1
            try:
                encoded = self._preparer.prepare(raw, self._task.source, self._task.options)
            except DroppedRow as dropped:
                self._set_aside(raw, dropped)
                if self._task.preparation.section.strict and dropped.fate == QUARANTINED:
                    break
            else:
                self._rows.append(encoded)
                self._characters += sum(map(len, encoded.texts.values()))
            if self._shard.num_rows >= MAX_SHARD_ROWS or self._characters >= MAX_SHARD_CHARACTERS:
                yield self._finish()
        self._on_rows(rows_read)
        last = self._finish()
        last.news = self._preparer.news()
        yield last

    def _set_aside(self, raw: SourceRow, dropped: DroppedRow) -> None:
        parsed = raw.problem is None
        line = quarantine_line(raw.source, raw.line, dropped.reason, dropped.row, parsed)
        self._characters += len(line)
        self._shard.quarantine.append(line)
        place = f"{raw.source}:{raw.line}"
        self._shard.dropped.append((dropped.fate, dropped.reason, place))

    def _finish(self) -> Shard:
        import pyarrow as pa

        shard, rows = self._shard, self._rows
        shard.fates = Counter(fate for fate, _, _ in shard.dropped)
        if rows:
            shard.num_good = len(rows)
            shard.kinds = column_kinds(rows)
            shard.digests = b"".join(row.digest() for row in rows)
            shard.sizes = array("q", (sum(map(len, row.texts.values())) for row in rows))
            shard.answered = bytes(_has_answer(row.row) for row in rows)
            table = to_table(rows, shard.kinds)
            with pa.OSFile(str(shard.path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as w:
                w.write_table(table)
            if self._task.preparation.signatures:
                shard.signatures.write_bytes(b"".join(map(self._preparer.signature, rows)))
        self._num_shards += 1
        self._begin()
        return shard


@dataclass(frozen=True)
class PlacedRow:
    """A stored row with its origin.

    Args:
        columns: its columns as they are stored; JSON columns as text.
        source: position of its file among the source files.
        line: line of that file.
    """

    columns: Row
    source: int
    line: int


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

    def messages(self, rows: "np.ndarray | None" = None) -> Iterator[Row]:
        """Yield the messages of the rows with these places, or of all in reading order."""
        import numpy as np

        if rows is None:
            rows = np.arange(int(self._ends[-1]) if len(self._ends) else 0)
        for start in range(0, len(rows), MAX_SHARD_ROWS):
            table = self.take(rows[start : start + MAX_SHARD_ROWS])
            for text in table.column("messages").to_pylist():
                yield {"messages": json.loads(text)}

    def pairs(self, places: Sequence[tuple[int, int]]) -> Iterator[tuple[PlacedRow, PlacedRow]]:
        """Yield the two rows of each pair of places."""
        for start in range(0, len(places), MAX_SHARD_ROWS):
            part = places[start : start + MAX_SHARD_ROWS]
            firsts = self._placed([first for first, _ in part])
            seconds = self._placed([second for _, second in part])
            yield from zip(firsts, seconds, strict=True)

    def _placed(self, places: Sequence[int]) -> list[PlacedRow]:
        import numpy as np

        rows = self.take(np.asarray(places, dtype=np.int64)).to_pylist()
        return [
            PlacedRow(
                {name: row[name] for name in self.kinds if row[name] is not None},
                row[SOURCE_COLUMN],
                row[LINE_COLUMN],
            )
            for row in rows
        ]

    def signatures(self, path: Path) -> "np.ndarray":
        """Return the signatures of all rows [rows, minima], joined in a file that stays on disk."""
        import numpy as np

        with path.open("wb") as joined:
            for shard in self._shards:
                joined.write(shard.signatures.read_bytes())
                shard.signatures.unlink()
        return np.memmap(path, dtype="<u4", mode="r").reshape(-1, NUM_PERMUTATIONS)

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
