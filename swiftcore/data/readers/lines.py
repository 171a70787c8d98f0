"""Lines of a byte stream, each of bounded length."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAX_LINE_BYTES = 16 * 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_EXCERPT_CHARACTERS = 2000


class Parsed(NamedTuple):
    """What a format reader yields: the line, the value or raw text, and the problem if any."""

    line: int
    value: object
    problem: str | None = None


def read_lines(
    stream: BinaryIO, first_line: int = 1, size_bytes: int | None = None
) -> Iterator[Parsed]:
    """Yield lines as bytes; one beyond `MAX_LINE_BYTES` is skipped to its end and reported.

    Args:
        stream: stands at the start of a line.
        first_line: number of that line.
        size_bytes: stop after the line that reaches this many bytes; None reads to the end.
    """
    number = first_line - 1
    left = float("inf") if size_bytes is None else size_bytes
    while left > 0 and (line := stream.readline(MAX_LINE_BYTES + 1)):
        number += 1
        left -= len(line)
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if len(line) <= MAX_LINE_BYTES:
            yield Parsed(number, line)
            continue
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
            left -= len(rest)
        yield Parsed(number, excerpt(line), f"line is longer than {MAX_LINE_BYTES} bytes")


def excerpt(raw: bytes) -> str:
    """Return the start of raw bytes as readable text."""
    return raw[:_EXCERPT_CHARACTERS].decode("utf-8", errors="backslashreplace").rstrip("\r\n")


def excerpt_text(text: str, at: int = 0) -> str:
    """Return the start of a piece of text, short enough to show."""
    return text[at : at + _EXCERPT_CHARACTERS]
