"""Rows to tokens, batch by batch; the unit of work of one process.

Two threads take turns in a process: while the tokenizer, which needs no Python, works on one batch,
the next one is planned and the one before is put together. Over several processes each takes a run
of parquet row groups and gives its rows back in flat buffers, so the result is the same to the byte
however many there are.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from swiftcore.data import SplitRows
from swiftcore.errors import DataError, RowTooLong, SwiftError
from swiftcore.template.control_tokens import TokenRequest
from swiftcore.template.encoded_folder import TokenizedRow
from swiftcore.template.encoding import Encoded
from swiftcore.template.settings import template_from_settings
from swiftcore.template.spans import Piece
from swiftcore.template.template import Template

BATCH_ROWS = 256
_NO_LABEL = "no token counts in the loss"

Row = dict[str, Any]
_RowIds = list[list[int]] | SwiftError


class Drop(NamedTuple):
    """A row that gave no training row, and why."""

    reason: str
    tokens: int | None
    where: str | None
    found: str | None


class RowEncoder:
    """Encodes rows with one template.

    Args:
        template: the template.
    """

    def __init__(self, template: Template) -> None:
        self._template = template

    def encode(
        self, batches: Iterable[list[Row]], start: int
    ) -> Iterator[tuple[int, TokenizedRow | Drop]]:
        """Yield what becomes of each row: its index, and its tokens or the reason it has none.

        Args:
            batches: consecutive rows.
            start: index of the first one in its split.
        """
        for batch, row_ids in self._tokenized_batches(batches, start):
            yield from self._outcomes(batch, row_ids)

    def _tokenized_batches(
        self, batches: Iterable[list[Row]], start: int
    ) -> "Iterator[tuple[_Batch, list[_RowIds]]]":
        """Yield each batch with the ids of its rows' pieces, or why they can't be had."""
        tokenize = self._template.pieces.tokenize
        with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as tokenizer:
            under_way: tuple[_Batch, Future[list[list[int]]]] | None = None
            for rows in batches:
                batch = self._planned(rows, start)
                start += len(rows)
                following = tokenizer.submit(tokenize, batch.request.texts)
                if under_way is not None:
                    yield under_way[0], self._completed(*under_way)
                under_way = batch, following
            if under_way is not None:
                yield under_way[0], self._completed(*under_way)

    def _planned(self, rows: list[Row], start: int) -> "_Batch":
        plans = [self._plan(row) for row in rows]
        pieces = [piece for plan in plans if isinstance(plan, list) for piece in plan]
        return _Batch(start, plans, self._template.pieces.request(pieces))

    def _plan(self, row: Row) -> list[Piece] | SwiftError:
        try:
            return self._template.plan(row, "train")
        except DataError as err:
            return err

    def _completed(self, batch: "_Batch", encoded: Future[list[list[int]]]) -> list[_RowIds]:
        try:
            ids = iter(self._template.pieces.complete(batch.request, encoded.result()))
        except DataError:
            # One row holds text that can't be encoded; it is found row by row.
            return [self._tokenized_row(plan) for plan in batch.plans]
        return [
            plan if isinstance(plan, SwiftError) else [next(ids) for _ in plan]
            for plan in batch.plans
        ]

    def _tokenized_row(self, plan: list[Piece] | SwiftError) -> _RowIds:
        if isinstance(plan, SwiftError):
            return plan
        try:
            return self._template.pieces.encode(plan)
        except DataError as err:
            return err

    def _outcomes(
        self, batch: "_Batch", row_ids: list[_RowIds]
    ) -> Iterator[tuple[int, TokenizedRow | Drop]]:
        finish = self._template.finish
        for index, (plan, ids) in enumerate(zip(batch.plans, row_ids, strict=True), batch.start):
            if isinstance(ids, SwiftError):
                yield index, _drop(ids)
                continue
            try:
                assert isinstance(plan, list)  # a row without plan has no ids either
                parts = finish(plan, ids, "train")
            except DataError as err:
                yield index, _drop(err)
                continue
            for part in parts:
                yield index, _encoded_row(index, part)


@dataclass(slots=True)
class _Batch:
    """Consecutive rows on their way to tokens.

    Args:
        start: index of the first row.
        plans: pieces of each row, or why it has none.
        request: what the tokenizer is asked.
    """

    start: int
    plans: list[list[Piece] | SwiftError]
    request: TokenRequest


@dataclass(frozen=True, slots=True)
class EncodeTask:
    """What one process encodes, in terms that any process can load.

    Args:
        settings: `Template.settings`.
        today: the date that templates print, YYYY-MM-DD.
        tokenizer_dir: folder of the tokenizer.
        dataset_dir: folder of the rows.
        split: which split of it.
        row_group: which row group of the split's file.
        start: index of its first row.
    """

    settings: str
    today: str
    tokenizer_dir: Path
    dataset_dir: Path
    split: str
    row_group: int
    start: int


@dataclass(slots=True)
class EncodedBlock:
    """The outcomes of a task in flat buffers: a list of Python numbers would cost ten times more.

    Args:
        stop: index after the last row.
        kept_as_text: control tokens in the data that stayed text.
        parsed_in_data: control tokens in the data that became control tokens.
        untrained: answers that rows wanted trained and that are not, by reason.
        drops: dropped rows by index.
    """

    stop: int = 0
    kept_as_text: int = 0
    parsed_in_data: int = 0
    untrained: Counter[str] = field(default_factory=Counter)
    drops: list[tuple[int, Drop]] = field(default_factory=list)
    _rows: array = field(default_factory=lambda: array("q"))
    _lengths: array = field(default_factory=lambda: array("q"))
    _num_labels: array = field(default_factory=lambda: array("q"))
    _input_ids: array = field(default_factory=lambda: array("i"))
    _labels: array = field(default_factory=lambda: array("i"))
    _weighted: bytearray = field(default_factory=bytearray)
    _weights: array = field(default_factory=lambda: array("f"))

    def add(self, encoded: TokenizedRow) -> None:
        """Append a row."""
        self._rows.append(encoded.row)
        self._lengths.append(len(encoded.input_ids))
        self._num_labels.append(encoded.num_labels)
        self._input_ids.fromlist(list(encoded.input_ids))
        self._labels.fromlist(list(encoded.labels))
        self._weighted.append(encoded.loss_scale is not None)
        if encoded.loss_scale is not None:
            self._weights.fromlist(list(encoded.loss_scale))

    def outcomes(self) -> Iterator[tuple[int, TokenizedRow | Drop]]:
        """Yield what `RowEncoder.encode` gave, in the order of the rows."""
        kept = ((row.row, row) for row in self._encoded_rows())
        # Stable: the parts of a split row keep their order.
        return merge(kept, self.drops, key=itemgetter(0))

    def _encoded_rows(self) -> Iterator[TokenizedRow]:
        start = weights_start = 0
        for row, length, num_labels, weighted in zip(
            self._rows, self._lengths, self._num_labels, self._weighted, strict=True
        ):
            stop = start + length
            weights = None
            if weighted:
                weights = self._weights[weights_start : weights_start + length]
                weights_start += length
            yield TokenizedRow(
                row, self._input_ids[start:stop], self._labels[start:stop], weights, num_labels
            )
            start = stop


def encode_task(task: EncodeTask) -> EncodedBlock:
    """Encode the rows of a task."""
    template = _template_of(task.settings, task.today, task.tokenizer_dir)
    pieces = template.pieces
    kept, parsed = pieces.num_kept_as_text, pieces.num_parsed_in_data
    untrained = template.untrained.copy()
    rows = SplitRows(task.dataset_dir, task.split)
    block = EncodedBlock()
    batches = rows.batches(BATCH_ROWS, row_groups=[task.row_group])
    for index, outcome in RowEncoder(template).encode(batches, task.start):
        if isinstance(outcome, Drop):
            block.drops.append((index, outcome))
        else:
            block.add(outcome)
        block.stop = index + 1
    block.kept_as_text = pieces.num_kept_as_text - kept
    block.parsed_in_data = pieces.num_parsed_in_data - parsed
    block.untrained = template.untrained - untrained
    return block


@lru_cache(maxsize=2)
def _template_of(settings: str, today: str, tokenizer_dir: Path) -> Template:
    """Load a template once a process; a tokenizer of 150,000 words takes a second."""
    from swiftcore.models import load_tokenizer

    return template_from_settings(json.loads(settings), load_tokenizer(tokenizer_dir), today=today)


def _encoded_row(index: int, encoded: Encoded) -> TokenizedRow | Drop:
    assert encoded.labels is not None  # rows for training have labels
    num_labels = encoded.num_labels
    if not num_labels:
        tokens = len(encoded.input_ids)
        return Drop(_NO_LABEL, tokens, "labels", f"{tokens} tokens")
    return TokenizedRow(index, encoded.input_ids, encoded.labels, encoded.loss_scale, num_labels)


def _drop(err: SwiftError) -> Drop:
    too_long = isinstance(err, RowTooLong)
    reason = "longer than max_length" if too_long else err.message
    tokens = int(str(err.found).split()[0]) if too_long else None
    return Drop(reason, tokens, err.where, err.found)
