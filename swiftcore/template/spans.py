"""Text on its way to tokens: who wrote it, and how much it weighs in the loss."""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple


class Author(Enum):
    """Who wrote a text, which decides the added tokens that may be parsed in it."""

    TEMPLATE = "template"
    """Ours: every added token is meant."""
    ASSISTANT = "assistant"
    """The model's words: special tokens are not parsed, `<think>` or `<tool_call>` are."""
    DATA = "data"
    """User, system, tool and pre-training text: no added token is parsed."""


class Span(NamedTuple):
    """A run of text by one author with one loss weight.

    A tuple, because a dozen are made for every row: a frozen dataclass takes four times as long.

    Args:
        text: the characters; empty where `ids` is given.
        author: decides which added tokens are parsed.
        weight: loss weight of its tokens; 0 means no loss.
        ids: token ids that have no text of their own.
        end_weight: weight of the stop token that follows, when this span ends a trained answer.
    """

    text: str
    author: Author = Author.TEMPLATE
    weight: float = 0.0
    ids: tuple[int, ...] = ()
    end_weight: float = 0.0

    def weighing(self, weight: float) -> "Span":
        """Return the span with another weight."""
        return Span(self.text, self.author, weight, self.ids, self.end_weight)

    def ending(self, end_weight: float) -> "Span":
        """Return the span with a weight for the stop token that follows it."""
        return Span(self.text, self.author, self.weight, self.ids, end_weight)


class Piece:
    """Spans that are tokenised together: neighbours of equal weight.

    Args:
        spans: the spans; at least one.
    """

    __slots__ = ("end_weight", "ids", "is_template", "spans", "text", "weight")

    spans: tuple[Span, ...]
    text: str
    """The characters of all spans."""
    weight: float
    """The weight all spans share."""
    ids: tuple[int, ...]
    """Ready token ids, of a piece that has no text."""
    end_weight: float
    """Weight of the stop token right after this piece."""
    is_template: bool
    """Whether all of it is the template's own text."""

    def __init__(self, spans: tuple[Span, ...]) -> None:
        self.spans = spans
        first = spans[0]
        self.weight = first.weight
        self.ids = first.ids
        self.end_weight = spans[-1].end_weight
        if len(spans) == 1:
            self.text = first.text
            self.is_template = first.author is Author.TEMPLATE
        else:
            self.text = "".join([span.text for span in spans])
            self.is_template = all(span.author is Author.TEMPLATE for span in spans)


def weigh(spans: Iterable[Span], weight: float) -> list[Span]:
    """Return the spans with another weight."""
    return [span if span.weight == weight else span.weighing(weight) for span in spans]


def cut(spans: Iterable[Span], runs: Iterable[tuple[int, float]]) -> list[Span]:
    """Lay `(length in characters, weight)` runs over the spans, cutting where a weight changes."""
    pending, runs = list(spans), list(runs)
    if len(runs) == 1 and 0 < runs[0][0] == sum(len(span.text) for span in pending):
        return weigh(pending, runs[0][1])
    result: list[Span] = []
    for length, weight in runs:
        while length > 0:
            span = pending.pop(0)
            if len(span.text) <= length and span.weight == weight:
                length -= len(span.text)
                result.append(span)
                continue
            head = span._replace(text=span.text[:length], weight=weight)
            if len(span.text) > length:
                pending.insert(0, span._replace(text=span.text[length:]))
            length -= len(head.text)
            result.append(head)
    return result


def group(spans: Iterable[Span]) -> list[Piece]:
    """Join neighbours of equal weight into pieces; spans with ids stay alone."""
    pieces: list[Piece] = []
    run: list[Span] = []
    for span in spans:
        if not span.text and not span.ids and not span.end_weight:
            continue
        splits = run and (
            span.ids or run[-1].ids or run[-1].end_weight or span.weight != run[-1].weight
        )
        if splits:
            pieces.append(Piece(tuple(run)))
            run = []
        run.append(span)
    if run:
        pieces.append(Piece(tuple(run)))
    return pieces
