"""Source code cut at definitions; the pieces put together are the exact file.

Python is parsed (`ast`, which builds a tree and runs nothing). For other languages a Pygments lexer
tells comments and strings from code, so that only brackets in code count: a block is what begins at
depth 0 after a blank line or after the end of a block.
"""

import ast
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from swiftcore.data.documents.chunks import (
    MAX_TOKENIZED_CHARACTERS,
    Chunk,
    TokenOffsets,
    check_size,
    chunk_text,
)
from swiftcore.data.documents.kinds import is_source_code, lexer_name
from swiftcore.data.documents.outcomes import Break, ExtractedDocument

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_DEEPEST_LEVEL = 2
_OPENING = "([{"
_BRACKET = re.compile(r"[()\[\]{}]")
# Beyond this, files are mostly made by machines, and parsing takes seconds and much memory.
MAX_LEXED_CHARACTERS = 2_000_000
# Lines that end or continue a block and so don't begin one.
_CONTINUATION = re.compile(
    r"[)\]}]|(?:end|fi|done|esac|else|elif|elsif|elseif|except|finally|catch|rescue|ensure|then|do|"
    r"begin|where)\b",
    re.IGNORECASE,
)


def split_code(
    text: str,
    language: str,
    size: int,
    offsets: TokenOffsets | None = None,
    breaks: Sequence[Break] | None = None,
) -> list[Chunk]:
    """Cut source code into chunks of at most `size` units, at definitions where possible.

    Chunks don't overlap: put together they are the text.

    Args:
        text: the source code.
        language: as `document_kind` names it.
        size: characters, or tokens when `offsets` is given.
        offsets: gives the (start, end) of each token of a text.
        breaks: what `code_breaks` says of the text, where it is known already.

    Raises:
        UsageError: the size is not above zero.
        DataError: one character alone has more tokens than `size`.
    """
    check_size(size, 0)
    found = code_breaks(text, language) if breaks is None else breaks

    def fits(start: int, end: int) -> bool:
        if offsets is None or end - start > MAX_TOKENIZED_CHARACTERS:
            return end - start <= size
        return len(offsets(text[start:end])) <= size

    spans = _packed(text, fits, (0, len(text)), found, 0, size, offsets)
    return [Chunk(text[start:end], start, end) for start, end in spans]


def split_document(
    document: ExtractedDocument, size: int, overlap: int = 0, offsets: TokenOffsets | None = None
) -> Sequence[Chunk]:
    """Cut a document as its kind asks: source code at definitions, other texts with overlap.

    Args:
        document: whose text is cut.
        size: characters, or tokens when `offsets` is given; 0 keeps it whole.
        overlap: how much of a chunk the next one repeats; code never overlaps.
        offsets: gives the (start, end) of each token of a text.

    Raises:
        DataError: one character alone has more tokens than `size`.
    """
    text = document.text
    if size == 0:
        return [Chunk(text, 0, len(text))]
    if is_source_code(document.kind):
        return split_code(text, document.kind, size, offsets, document.breaks)
    return chunk_text(text, size, overlap, offsets)


def code_breaks(text: str, language: str) -> list[Break]:
    """Return where definitions begin, in order.

    Text without known language, and a file beyond `MAX_LEXED_CHARACTERS`, is cut after blank lines.
    """
    if language == "python" and len(text) <= MAX_LEXED_CHARACTERS:
        try:
            return sorted(_python_breaks(text), key=_place)
        except (SyntaxError, ValueError, RecursionError):
            pass  # Python 2, or a fragment: its lexer copes with those
    return list(_lexed_breaks(text, language))


def _packed(
    text: str,
    fits: Callable[[int, int], bool],
    span: tuple[int, int],
    breaks: Sequence[Break],
    level: int,
    size: int,
    offsets: TokenOffsets | None,
) -> Iterator[tuple[int, int]]:
    """Yield spans of whole definitions, as many as fit; too long ones are cut a level deeper."""
    start, end = span
    if level > _DEEPEST_LEVEL:
        for chunk in chunk_text(text[start:end], size, 0, offsets):
            yield start + chunk.start, start + chunk.end
        return
    cuts = [point.at for point in breaks if point.level == level and start < point.at < end]
    held: tuple[int, int] | None = None
    for unit in pairwise([start, *cuts, end]):
        if held is not None and fits(held[0], unit[1]):
            held = (held[0], unit[1])
            continue
        if held is not None:
            yield held
            held = None
        if fits(*unit):
            held = unit
        elif unit[0] < unit[1]:
            first = bisect_right(breaks, unit[0], key=_place)
            inner = breaks[first : bisect_left(breaks, unit[1], key=_place)]
            yield from _packed(text, fits, unit, inner, level + 1, size, offsets)
    if held is not None and held[0] < held[1]:
        yield held


def _place(point: Break) -> int:
    return point.at


def _python_breaks(text: str) -> Iterator[Break]:
    starts = [found.start() for found in _LINE.finditer(text)]
    lines = [found[0] for found in _LINE.finditer(text)]
    pending: list[tuple[ast.AST, int]] = [(ast.parse(text), 0)]
    while pending:
        parent, level = pending.pop()
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            # A comment right above belongs to the definition.
            while first > 0 and lines[first - 1].lstrip().startswith("#"):
                first -= 1
            yield Break(starts[first], level)
            if isinstance(node, ast.ClassDef) and level < _DEEPEST_LEVEL:
                pending.append((node, level + 1))


def _lexed_breaks(text: str, language: str) -> Iterator[Break]:
    starts = [found.start() for found in _LINE.finditer(text)]
    if len(text) > MAX_LEXED_CHARACTERS:
        depths, inside = [0] * len(starts), [False] * len(starts)
    else:
        depths, inside = _depths_at_lines(text, starts, language)
    previous_is_end = True
    for number, found in enumerate(_LINE.finditer(text)):
        line = found[0]
        if not line.strip():
            previous_is_end = True
            continue
        is_continuation = _CONTINUATION.match(line.lstrip()) is not None
        depth, is_indented = depths[number], line[0] in " \t"
        level = max(depth, 1) if is_indented else depth
        opens = previous_is_end and not is_continuation and not inside[number]
        if opens and level <= _DEEPEST_LEVEL and found.start() > 0:
            yield Break(found.start(), level)
        ends_block = is_continuation and line.strip()[:1] in ")]}e"
        previous_is_end = ends_block or line.rstrip().endswith(("}", "};"))


def _depths_at_lines(
    text: str, starts: Sequence[int], language: str
) -> tuple[list[int], list[bool]]:
    """Return for each line the depth of brackets before it, and whether a string or comment runs
    over its beginning."""
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment, String

    depths: list[int] = []
    inside: list[bool] = []

    def reach(end: int, begun_at: int | None) -> None:
        """Fill in the lines that begin up to `end`, in a token that begins at `begun_at`."""
        while len(depths) < len(starts) and starts[len(depths)] <= end:
            inside.append(begun_at is not None and starts[len(depths)] > begun_at)
            depths.append(depth)

    name = lexer_name(language) if is_source_code(language) else "text"
    depth = 0
    for at, kind, value in get_lexer_by_name(name).get_tokens_unprocessed(text):
        reach(at, None)
        if kind in Comment or kind in String:
            reach(at + len(value) - 1, at)
            continue
        for bracket in _BRACKET.finditer(value):
            reach(at + bracket.start(), None)
            depth = depth + 1 if bracket[0] in _OPENING else max(depth - 1, 0)
        reach(at + len(value) - 1, None)
    reach(len(text), None)
    return depths, inside
