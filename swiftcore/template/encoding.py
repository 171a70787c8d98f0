"""From pieces to ids, labels and weights; truncation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from swiftcore.errors import RowTooLong
from swiftcore.template.spans import Piece

Truncation = Literal["delete", "left", "right", "split"]
NO_LOSS = -100
"""Label of a token without loss, as PyTorch's cross entropy ignores it."""


@dataclass(frozen=True)
class Encoded:
    """One row as tokens.

    Args:
        input_ids: token ids.
        labels: unshifted labels, -100 where there is no loss; None for a prompt.
        loss_scale: weight of each token, None where all are 0 or 1.
        decode: turns ids into text.
    """

    input_ids: list[int]
    labels: list[int] | None
    loss_scale: list[float] | None
    decode: Callable[[list[int]], str]

    @cached_property
    def text(self) -> str:
        """The tokens' text, control tokens included."""
        return self.decode(self.input_ids)

    @property
    def num_labels(self) -> int:
        """Tokens that count in the loss."""
        labels = self.labels or []
        return len(labels) - labels.count(NO_LOSS)


def assemble(
    pieces: list[Piece],
    piece_ids: list[list[int]],
    stop_ids: list[int],
    decode: Callable[[list[int]], str],
) -> Encoded:
    """Concatenate tokenised pieces and lay labels and weights over them.

    The stop token of an answer in the middle of a conversation belongs to the separator after it;
    it is trained like the last one. The first token has nothing to be predicted from: no label.
    """
    if any(p.weight not in (0.0, 1.0) or p.end_weight not in (0.0, 1.0) for p in pieces):
        return _assemble_weighted(pieces, piece_ids, stop_ids, decode)
    # Nearly all rows: the labels alone tell the weights, which spares a list as long as the row.
    input_ids: list[int] = []
    labels: list[int] = []
    ends: list[int] = []
    for piece, ids in zip(pieces, piece_ids, strict=True):
        input_ids += ids
        labels += ids if piece.weight else [NO_LOSS] * len(ids)
        if piece.end_weight:
            ends.append(len(input_ids))
    for start in ends:
        stop = start + len(stop_ids)
        if input_ids[start:stop] == stop_ids and labels[start:stop].count(NO_LOSS) == len(stop_ids):
            labels[start:stop] = stop_ids
    if labels:
        labels[0] = NO_LOSS
    return Encoded(input_ids, labels, None, decode)


def _assemble_weighted(
    pieces: list[Piece],
    piece_ids: list[list[int]],
    stop_ids: list[int],
    decode: Callable[[list[int]], str],
) -> Encoded:
    input_ids: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    ends: list[tuple[int, float]] = []
    for piece, ids in zip(pieces, piece_ids, strict=True):
        input_ids += ids
        labels += ids if piece.weight > 0 else [NO_LOSS] * len(ids)
        weights += [piece.weight] * len(ids)
        if piece.end_weight:
            ends.append((len(input_ids), piece.end_weight))
    for start, weight in ends:
        stop = start + len(stop_ids)
        if input_ids[start:stop] == stop_ids and not any(weights[start:stop]):
            labels[start:stop] = stop_ids
            weights[start:stop] = [weight] * len(stop_ids)
    return _labelled(input_ids, labels, weights, decode)


def truncate(encoded: Encoded, max_length: int | None, strategy: Truncation) -> list[Encoded]:
    """Cut a row to `max_length` tokens; "split" gives all its parts.

    Raises:
        RowTooLong: the strategy is "delete".
    """
    length = len(encoded.input_ids)
    if max_length is None or length <= max_length:
        return [encoded]
    if strategy == "delete":
        raise RowTooLong(
            "the row has more tokens than max_length",
            where="max_length",
            found=f"{length} tokens",
            expected=f"at most {max_length}",
            do="raise template.max_length, or set truncation_strategy to left or right",
        )
    if strategy == "right":
        return [_part(encoded, 0, max_length)]
    if strategy == "left":
        return [_part(encoded, length - max_length, length)]
    return [
        _part(encoded, start, min(start + max_length, length))
        for start in range(0, length, max_length)
    ]


def as_prompt(encoded: Encoded) -> Encoded:
    """Drop labels and weights."""
    return Encoded(encoded.input_ids, None, None, encoded.decode)


def _labelled(
    input_ids: list[int],
    labels: list[int],
    weights: list[float],
    decode: Callable[[list[int]], str],
) -> Encoded:
    if labels:
        labels[0] = NO_LOSS
        weights[0] = 0.0
    weighted = not {0.0, 1.0}.issuperset(weights)
    return Encoded(input_ids, labels, weights if weighted else None, decode)


def _part(encoded: Encoded, start: int, stop: int) -> Encoded:
    labels = encoded.labels
    if labels is None:
        return Encoded(encoded.input_ids[start:stop], None, None, encoded.decode)
    weights = encoded.loss_scale or [float(label != NO_LOSS) for label in labels]
    return _labelled(
        encoded.input_ids[start:stop], labels[start:stop], weights[start:stop], encoded.decode
    )
