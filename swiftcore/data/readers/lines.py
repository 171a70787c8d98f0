"""Lines of a byte stream, each of bounded length."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAX_LINE_BYTES = 16 * 2**20

_EXCERPT_CHARACTERS = 2000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Parsed(NamedTuple):
    """What a format reader yields: the line, the value or raw text, and the problem if any."""

    line: int
    value: object
    problem: str | None = None


def read_lines(stream: BinaryIO) -> Iterator[Parsed]:
    """Yield lines as bytes; one beyond `MAX_LINE_BYTES` is skipped to its end and reported."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if len(line) <= MAX_LINE_BYTES:
            yield Parsed(number, line)
            continue
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
        yield Parsed(number, excerpt(line), f"line is longer than {MAX_LINE_BYTES} bytes")


def excerpt(raw: bytes) -> str:
    """Return the start of raw bytes as readable text."""
    return raw[:_EXCERPT_CHARACTERS].decode("utf-8", errors="backslashreplace").rstrip("\r\n")
