"""Reader of plain text files."""

from collections.abc import Iterator
from typing import BinaryIO

from swiftcore.data.readers.lines import MAX_LINE_BYTES, Parsed, excerpt, read_lines


def read_texts(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one `{"text": ...}` a paragraph, or a line where no blank line stands between any."""
    by_line = not _has_paragraphs(stream)
    stream.seek(0)
    group: list[Parsed] = []
    for line in read_lines(stream):
        blank = _is_blank(line)
        if not blank:
            group.append(line)
        if group and (blank or by_line):
            yield _text_row(group)
            group = []
    if group:
        yield _text_row(group)


def _has_paragraphs(stream: BinaryIO) -> bool:
    seen_text = seen_gap = False
    for line in read_lines(stream):
        blank = _is_blank(line)
        if seen_gap and not blank:
            return True
        seen_text = seen_text or not blank
        seen_gap = seen_gap or (blank and seen_text)
    return False


def _is_blank(line: Parsed) -> bool:
    return isinstance(line.value, bytes) and not line.value.strip()


def _text_row(lines: list[Parsed]) -> Parsed:
    number = lines[0].line
    for line in lines:
        if line.problem is not None:
            return Parsed(number, line.value, f"{line.problem} (line {line.line})")
    raw = b"".join(line.value for line in lines if isinstance(line.value, bytes))
    if len(raw) > MAX_LINE_BYTES:
        return Parsed(number, excerpt(raw), f"paragraph is longer than {MAX_LINE_BYTES} bytes")
    try:
        return Parsed(number, {"text": raw.decode("utf-8").replace("\r\n", "\n").rstrip("\n")})
    except UnicodeDecodeError as err:
        place = number + raw.count(b"\n", 0, err.start)
        return Parsed(number, excerpt(raw), f"invalid UTF-8 (line {place})")
