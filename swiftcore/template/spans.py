"""Text on its way to tokens: who wrote it, and how much it weighs in the loss."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum


class Author(Enum):
    """Who wrote a text, which decides the added tokens that may be parsed in it."""

    TEMPLATE = "template"
    """Ours: every added token is meant."""
    ASSISTANT = "assistant"
    """The model's words: special tokens are not parsed, `<think>` or `<tool_call>` are."""
    DATA = "data"
    """User, system, tool and pre-training text: no added token is parsed."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text by one author with one loss weight.

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
        # dataclasses.replace takes ten times as long, and every span of every row comes by here.
        return Span(self.text, self.author, weight, self.ids, self.end_weight)


@dataclass(frozen=True, slots=True)
class Piece:
    """Spans that are tokenised together: neighbours of equal weight."""

    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        """The characters of all spans."""
        return "".join(span.text for span in self.spans)

    @property
    def weight(self) -> float:
        """The weight all spans share."""
        return self.spans[0].weight

    @property
    def ids(self) -> tuple[int, ...]:
        """Ready token ids, of a piece that has no text."""
        return self.spans[0].ids

    @property
    def end_weight(self) -> float:
        """Weight of the stop token right after this piece."""
        return self.spans[-1].end_weight


def fill(text: str, values: dict[str, list[Span]]) -> list[Span]:
    """Cut a template text at its placeholders and put the given spans there."""
    if len(values) == 1:
        ((placeholder, inserted),) = values.items()
        before, found, after = text.partition(placeholder)
        if found and placeholder not in after:
            spans = [Span(before), *inserted, Span(after)]
            return [span for span in spans if span.text or span.ids]
    spans = [Span(text)]
    for placeholder, inserted in values.items():
        spans = list(_fill_one(spans, placeholder, inserted))
    return [span for span in spans if span.text or span.ids]


def _fill_one(spans: list[Span], placeholder: str, inserted: list[Span]) -> Iterator[Span]:
    for span in spans:
        # Text that was put in already may contain "{{QUERY}}" as ordinary words.
        if span.author is not Author.TEMPLATE or placeholder not in span.text:
            yield span
            continue
        before, *rest = span.text.split(placeholder)
        yield Span(before)
        for text in rest:
            yield from inserted
            yield Span(text)


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
            head = replace(span, text=span.text[:length], weight=weight)
            if len(span.text) > length:
                pending.insert(0, replace(span, text=span.text[length:]))
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
