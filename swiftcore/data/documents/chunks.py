"""Text in chunks of bounded size that overlap and lose nothing.

A chunk is a stretch of the text: `text[start:end]`, its first chunk starts at 0, the last one ends
at the end, and none begins after the one before it has ended. So the text can be put together again
(`rebuild`). Cuts prefer the end of a paragraph, a line, a sentence, a word, in this order; white
space stays with the chunk that it ends.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from swiftcore.errors import DataError, UsageError

# Returns the (start, end) of each token in the text, in order: the offsets of a fast tokenizer.
TokenOffsets = Callable[[str], Sequence[tuple[int, int]]]
# Tokens take a hundred bytes each; longer texts are tokenized in parts, without overlap in between.
MAX_TOKENIZED_CHARACTERS = 1_000_000

_BORDERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:\r?\n[ \t]*){2,}",
        r"\r?\n|\r(?!\n)",
        r"[.!?…][\"'”’)\]]*[ \t]+|[。！？][”’」』）]*",
        r"\s+",
    )
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a text: `text` is what stands from `start` to `end` of the whole."""

    text: str
    start: int
    end: int


class Ruler(Protocol):
    """Measures stretches of one text in characters or tokens."""

    def reach(self, start: int, size: int) -> int:
        """Return how far a stretch from `start` may go so that it likely has `size` units."""
        ...

    def back(self, end: int, size: int) -> int:
        """Return the lowest start of a stretch up to `end` of at most `size` units."""
        ...

    def length(self, start: int, end: int) -> int:
        """Return the units that the stretch has when it stands alone."""
        ...


class CharacterRuler:
    """Measures in characters (Unicode code points)."""

    def __init__(self, text: str) -> None:
        self._end = len(text)

    def reach(self, start: int, size: int) -> int:
        """Return `start + size`, or the end of the text."""
        return min(start + size, self._end)

    def back(self, end: int, size: int) -> int:
        """Return `end - size`, or 0."""
        return max(end - size, 0)

    def length(self, start: int, end: int) -> int:
        """Return the number of characters."""
        return end - start


class TokenRuler:
    """Measures in tokens.

    Where to cut follows the tokens of the whole text; how long a chunk is follows from its own,
    because a text may have other tokens alone than as part of a longer one.
    """

    def __init__(self, text: str, offsets: TokenOffsets) -> None:
        self._text = text
        self._offsets = offsets
        self._starts = [start for start, _ in offsets(text)]

    def reach(self, start: int, size: int) -> int:
        """Return the start of the first token that is too much."""
        last = bisect_left(self._starts, start) + size
        return self._starts[last] if last < len(self._starts) else len(self._text)

    def back(self, end: int, size: int) -> int:
        """Return the start of the earliest token that still fits."""
        if size == 0 or not self._starts:
            return end
        first = max(bisect_left(self._starts, end) - size, 0)
        if first > 0 and self._starts[first - 1] == self._starts[first]:
            # Tokens of one character come together or not at all.
            first = bisect_right(self._starts, self._starts[first])
        return min(self._starts[first], end) if first < len(self._starts) else end

    def length(self, start: int, end: int) -> int:
        """Return the number of tokens of the stretch alone."""
        return len(self._offsets(self._text[start:end]))


def chunk_text(
    text: str, size: int, overlap: int = 0, offsets: TokenOffsets | None = None
) -> list[Chunk]:
    """Cut a text into chunks of at most `size` units, each repeating at most `overlap` of the last.

    Args:
        text: any text; an empty one has no chunks.
        size: characters, or tokens when `offsets` is given.
        overlap: units at the end of a chunk that the next one begins with, where borders allow.
        offsets: gives the (start, end) of each token of a text.

    Raises:
        UsageError: the size is not above zero, or the overlap is not below the size.
        DataError: one character alone has more tokens than `size`.
    """
    check_size(size, overlap)
    if offsets is not None and len(text) > MAX_TOKENIZED_CHARACTERS:
        return [
            Chunk(chunk.text, part.start + chunk.start, part.start + chunk.end)
            for part in chunk_text(text, MAX_TOKENIZED_CHARACTERS)
            for chunk in chunk_text(part.text, size, overlap, offsets)
        ]
    ruler = CharacterRuler(text) if offsets is None else TokenRuler(text, offsets)
    chunks: list[Chunk] = []
    start = end = 0
    while end < len(text):
        cut = _cut(text, ruler, start, end, size)
        if cut is None:
            # The overlap leaves no room for anything new.
            start = end
            cut = _cut(text, ruler, start, end, size)
        if cut is None:
            raise _too_small(text, start, size)
        chunks.append(Chunk(text[start:cut], start, cut))
        end = cut
        start = _overlap_start(text, ruler, start, end, overlap)
    return chunks


def rebuild(chunks: Iterable[Chunk]) -> str:
    """Put the text together again from its chunks.

    Raises:
        DataError: a chunk is missing.
    """
    pieces: list[str] = []
    covered = 0
    for chunk in chunks:
        if chunk.start > covered:
            raise DataError(
                "a chunk is missing", where=f"character {covered}", found=f"next: {chunk.start}"
            )
        pieces.append(chunk.text[covered - chunk.start :])
        covered = max(covered, chunk.end)
    return "".join(pieces)


def check_size(size: int, overlap: int) -> None:
    """Refuse sizes that have no meaning.

    Raises:
        UsageError: the size is not above zero, or the overlap is not below the size.
    """
    if size < 1 or not 0 <= overlap < size:
        raise UsageError(
            "chunk size and overlap don't fit together",
            found=f"size {size}, overlap {overlap}",
            expected="a size above zero and an overlap from 0 to below the size",
        )


def _cut(text: str, ruler: Ruler, start: int, covered: int, size: int) -> int | None:
    """Return the best end for a chunk that begins at `start` and says more than `covered`."""
    allowed = size
    while allowed > 0:
        limit = ruler.reach(start, allowed)
        if limit <= covered:
            break
        cut = limit if limit == len(text) else _border(text, start, covered, limit)
        excess = ruler.length(start, cut) - size
        if excess <= 0:
            return cut
        allowed -= excess
    # Tokens of more than one character may hide a cut that fits.
    alone = covered + 1
    return alone if alone <= len(text) and ruler.length(start, alone) <= size else None


def _border(text: str, start: int, covered: int, limit: int) -> int:
    """Return the last good border in the second half of what is allowed, else the limit."""
    lowest = max(covered, start + (limit - start) // 2)
    cut = limit
    for border in _BORDERS:
        ends = [found.end() for found in border.finditer(text, lowest, limit)]
        if ends and ends[-1] > lowest:
            cut = ends[-1]
            break
    # Between \r and \n is no place to cut, unless there is no other.
    splits_newline = text[cut - 1 : cut + 1] == "\r\n" and cut - 1 > lowest
    return cut - 1 if splits_newline else cut


def _overlap_start(text: str, ruler: Ruler, start: int, end: int, overlap: int) -> int:
    """Return where the next chunk begins: at a border, and after the beginning of this one."""
    if overlap == 0 or end == len(text):
        return end
    lowest = max(ruler.back(end, overlap), start + 1)
    for border in _BORDERS:
        found = border.search(text, lowest, end)
        if found is not None and found.end() < end:
            return found.end()
    return lowest if lowest < end else end


def _too_small(text: str, start: int, size: int) -> DataError:
    return DataError(
        "one character alone has more tokens than a chunk may have",
        where=f"character {start}",
        found=repr(text[start : start + 1]),
        expected=f"at most {size} tokens",
        do="raise the chunk size",
    )
