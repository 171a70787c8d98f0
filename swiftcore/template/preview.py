"""A look at rows as tokens, without an encoded folder: what `swift template show` prints."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swiftcore.errors import DataError, RowTooLong
from swiftcore.template.card import token_weights
from swiftcore.template.conversation import Mode
from swiftcore.template.encoding import NO_LOSS, Encoded
from swiftcore.template.parity import parity_report
from swiftcore.template.samples import NUM_SAMPLES, Candidate, KindReader, choose_samples
from swiftcore.template.template import Template

_PARITY_ROWS = 64
_ANSWERS = ("assistant", "tool_call")


@dataclass(frozen=True)
class Shown:
    """One row as tokens.

    Args:
        row: its place among the rows.
        line: why it is shown.
        encoded: its tokens; the first part of a row that was split.
    """

    row: int
    line: str
    encoded: Encoded

    @property
    def weights(self) -> list[float]:
        """The loss weight of each token; all 0 in a prompt."""
        if self.encoded.labels is None:
            return [0.0] * len(self.encoded.input_ids)
        return token_weights(self.encoded.labels, self.encoded.loss_scale)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready fields."""
        encoded = self.encoded
        return {
            "row": self.row,
            "why": self.line,
            "tokens": len(encoded.input_ids),
            "trained": encoded.num_labels,
            "input_ids": encoded.input_ids,
            "labels": encoded.labels,
            "loss_scale": encoded.loss_scale,
            "text": encoded.text,
        }


@dataclass(frozen=True)
class Preview:
    """Rows as tokens, and what became of the others.

    Args:
        shown: the chosen rows.
        lengths: tokens of each row that could be encoded.
        trained: tokens that count in the loss, of all rows.
        drops: reasons for which rows can't be encoded, with their number.
        parity: see `parity_report`; None where it was not asked for.
    """

    shown: list[Shown]
    lengths: list[int]
    trained: int
    drops: dict[str, int]
    parity: dict[str, Any] | None


def show_row(template: Template, rows: Sequence[Mapping[str, Any]], row: int, mode: Mode) -> Shown:
    """Return one row as tokens.

    Raises:
        DataError: there is no such row, or it can't be encoded.
    """
    if not 0 <= row < len(rows):
        raise DataError(
            "there is no such row",
            where="--row",
            found=row,
            expected=f"0 to {len(rows) - 1}" if rows else "no row was read",
            do="count rows from 0, as drops.jsonl and the card do",
        )
    try:
        return Shown(row, "", _encoded(template, rows[row], mode))
    except DataError as err:
        where = f"row {row}" + (f": {err.where}" if err.where else "")
        raise type(err)(
            err.message, where=where, found=err.found, expected=err.expected, do=err.do
        ) from err


def preview(
    template: Template,
    rows: Sequence[Mapping[str, Any]],
    mode: Mode,
    count: int = NUM_SAMPLES,
) -> Preview:
    """Encode rows, choose some as the card does, and compare with the model's own template.

    Raises:
        DataError: no row can be encoded; the message says why.
    """
    reader = KindReader(template)
    limit, candidates = template.options.max_length, list[Candidate]()
    encoded: dict[int, Encoded] = {}
    drops: Counter[str] = Counter()
    first: DataError | None = None
    for place, row in enumerate(rows):
        try:
            found = _encoded(template, row, mode)
        except DataError as err:
            drops["longer than max_length" if isinstance(err, RowTooLong) else err.message] += 1
            first = first or err
            continue
        encoded[place] = found
        # Only a full row can have been cut; whether it was is told by its uncut length.
        is_cut = limit == len(found.input_ids) < _full_length(template, row, mode)
        kinds = reader.kinds(row, is_weighted=found.loss_scale is not None, is_cut=is_cut)
        candidates.append(Candidate(place, len(found.input_ids), kinds))
    if not encoded:
        raise DataError(
            "no row can be encoded",
            where=first.where if first else "rows",
            found="; ".join(f"{number} x {reason}" for reason, number in drops.items()) or "no row",
            expected="at least one row",
            do="mend the rows, or change the template's settings",
        ) from first
    shown = [
        Shown(choice.place, choice.line, encoded[choice.place])
        for choice in choose_samples(candidates, count)
    ]
    compared = [rows[place] for place in list(encoded)[:_PARITY_ROWS]]
    return Preview(
        shown,
        [len(each.input_ids) for each in encoded.values()],
        sum(each.num_labels for each in encoded.values()),
        dict(drops),
        parity_report(template, template.tokenizer, compared),
    )


def _encoded(template: Template, row: Mapping[str, Any], mode: Mode) -> Encoded:
    found = template.encode(_asked(row) if mode == "infer" else row, mode)
    encoded = found[0] if isinstance(found, list) else found
    if mode == "train" and encoded.labels is not None and set(encoded.labels) <= {NO_LOSS}:
        raise DataError(
            "no token counts in the loss",
            where="labels",
            found=f"{len(encoded.input_ids)} tokens",
            expected="an answer",
            do="look at the row with --mode infer, or check loss_scale and the loss flags",
        )
    return encoded


def _asked(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row as it is asked: without the answer it ends with."""
    messages = row.get("messages")
    if not isinstance(messages, list):
        return row
    kept = [*messages]
    while kept and isinstance(kept[-1], Mapping) and kept[-1].get("role") in _ANSWERS:
        kept.pop()
    return {**row, "messages": kept} if kept else row


def _full_length(template: Template, row: Mapping[str, Any], mode: Mode) -> int:
    pieces = template.plan(_asked(row) if mode == "infer" else row, mode)
    return sum(map(len, template.pieces.encode(pieces)))
