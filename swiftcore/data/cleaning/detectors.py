"""How kinds of secrets and personal values are found in a text, in time linear in its length.

A detector's pattern is tried only on texts that have one of its `hints`, plain text that every
value of its kind contains, or, for numbers, seven digits near each other; most texts end there.
Patterns have bounded repetitions only, no two of which can match the same characters in more than
a few ways, so no text makes them slow. They begin with the first character of the value and look
behind it afterwards: that lets the regex engine skip to the places where a value can begin.
`accept` then checks what no pattern can: check digits, number ranges, entropy.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Family = Literal["secret", "personal"]
Accept = Callable[[re.Match[str]], tuple[int, int] | None]
"""Returns (start, end) of the value inside the match, or None for a look-alike."""

_NUMBER = re.compile(r"\d(?:[ .()/-]{0,3}\d){6}", re.ASCII)


class Span(NamedTuple):
    """Where a value of some kind stands in a text; never the value itself."""

    kind: str
    start: int
    end: int


def whole_match(match: re.Match[str]) -> tuple[int, int]:
    """Accept all that a pattern matched."""
    return match.span()


def first_group(match: re.Match[str]) -> tuple[int, int]:
    """Accept the first group of a pattern; what is around it may be seen."""
    return match.span(1)


@dataclass(frozen=True, slots=True)
class Detector:
    """Finds one kind of value.

    Args:
        kind: name of the kind, also that of its placeholder: `[EMAIL]`.
        family: secret or personal.
        pattern: what a value looks like.
        hints: texts of which one must occur in a text; in lower case when `ignore_case`.
        accept: says where in a match the value is, or that it is none.
        ignore_case: whether hints are sought in the text in lower case.
        numeric: whether a value has seven digits near each other.
    """

    kind: str
    family: Family
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    accept: Accept = whole_match
    ignore_case: bool = False
    numeric: bool = False


class DetectorSet:
    """Detectors that search a text together; where two findings overlap the earlier has it."""

    def __init__(self, detectors: Iterable[Detector]) -> None:
        self.detectors = tuple(detectors)
        ranked = list(enumerate(self.detectors))
        self._exact = [(h, r) for r, d in ranked if not d.ignore_case for h in d.hints]
        self._caseless = [(h, r) for r, d in ranked if d.ignore_case for h in d.hints]
        self._numeric = {rank for rank, d in ranked if d.numeric}
        self._always = {rank for rank, d in ranked if not d.hints and not d.numeric}

    def find(self, text: str) -> list[Span]:
        """Return what is found in a text, by place."""
        active = set(self._always)
        for hint, rank in self._exact:
            if hint in text:
                active.add(rank)
        lower = text.lower() if self._caseless else text
        for hint, rank in self._caseless:
            if hint in lower:
                active.add(rank)
        if _NUMBER.search(text):
            active |= {rank for rank in self._numeric if not self.detectors[rank].hints}
        else:
            active -= self._numeric
        if not active:
            return []
        return _without_overlaps(self._spans(text, rank) for rank in sorted(active))

    def _spans(self, text: str, rank: int) -> list[Span]:
        detector = self.detectors[rank]
        places = map(detector.accept, detector.pattern.finditer(text))
        return [Span(detector.kind, *place) for place in places if place is not None]


def _without_overlaps(groups: Iterable[list[Span]]) -> list[Span]:
    """Join sorted lists of spans; a span that overlaps one of an earlier list is left out."""
    kept: list[Span] = []
    for group in groups:
        clear: list[Span] = []
        at = 0
        for span in group:
            while at < len(kept) and kept[at].end <= span.start:
                at += 1
            if at == len(kept) or kept[at].start >= span.end:
                clear.append(span)
        if clear:
            kept = sorted([*kept, *clear], key=lambda span: span.start) if kept else clear
    return kept
