"""Readers of JSON documents and JSON lines."""

import io
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from swiftcore.data.readers.lines import Parsed, excerpt, read_lines
from swiftcore.errors import DataError

# A JSON document is parsed in memory, so a gzip bomb must end somewhere.
MAX_DOCUMENT_BYTES = 2**30

_SPACE = re.compile(r"[ \t\r\n]*")


def read_jsonl(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one value a line."""
    for number, line, problem in read_lines(stream):
        if problem is not None:
            yield Parsed(number, line, problem)
        elif isinstance(line, bytes) and not line.isspace():
            yield _json_line(number, line)


def _json_line(number: int, line: bytes) -> Parsed:
    try:
        return Parsed(number, _DECODER.decode(line.rstrip(b"\r\n").decode("utf-8")))
    except UnicodeDecodeError as err:
        problem = f"invalid UTF-8 at byte {err.start + 1} of the line"
    except json.JSONDecodeError as err:
        nul = "; the line holds a NUL byte" if b"\0" in line else ""
        problem = f"not valid JSON: {err.msg} (column {err.colno}){nul}"
    except (ValueError, RecursionError) as err:
        problem = f"not valid JSON: {err}"
    return Parsed(number, excerpt(line), problem)


def read_json(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield the rows of a JSON document; a document with a syntax error is refused as a whole.

    Where a document breaks off nobody can say how many rows are lost, so no share of bad rows
    would be true: it raises instead.
    """
    raw = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise DataError(
            "the JSON document is too large to read at once",
            where=source,
            expected=f"at most {MAX_DOCUMENT_BYTES} bytes",
            do="convert it to .jsonl, which is read line by line",
        )
    text = _decode_document(raw, source)
    start = _skip_space(text, 0)
    if start == len(text):
        return
    if text[start] == "[":
        yield from _list_items(text, start, source)
        return
    value, end = _decode_at(text, start, source)
    if _skip_space(text, end) < len(text):
        yield from read_jsonl(io.BytesIO(raw), source)
    elif isinstance(value, dict) and isinstance(value.get("data"), list):
        yield from _list_items(text, _value_start(text, start, "data", source), source)
    else:
        yield Parsed(_line_of(text, start), value)


def _decode_document(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        raise DataError(
            "the JSON document is not UTF-8",
            where=f"{source}:{line}",
            found=f"byte {raw[err.start]:#04x}",
            do="save it as UTF-8",
        ) from err


def _list_items(text: str, start: int, source: str) -> Iterator[Parsed]:
    at, line, counted = _skip_space(text, start + 1), 1, 0
    if text[at : at + 1] == "]":
        return
    while True:
        line += text.count("\n", counted, at)
        counted = at
        value, end = _decode_at(text, at, source)
        yield Parsed(line, value)
        end = _skip_space(text, end)
        if text[end : end + 1] == "]":
            return
        if text[end : end + 1] != ",":
            raise _broken_document(text, end, source, "expected , or ] after a row")
        at = _skip_space(text, end + 1)


def _value_start(text: str, start: int, wanted: str, source: str) -> int:
    """Return where the value of the last key `wanted` begins in the object that starts here."""
    at, found = _skip_space(text, start + 1), start
    while text[at : at + 1] == '"':
        key, end = _decode_at(text, at, source)
        value_at = _skip_space(text, _skip_space(text, end) + 1)
        if key == wanted:
            found = value_at
        _, end = _decode_at(text, value_at, source)
        at = _skip_space(text, _skip_space(text, end) + 1)
    return found


def _decode_at(text: str, at: int, source: str) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as err:
        raise _broken_document(text, err.pos, source, err.msg) from err
    except (ValueError, RecursionError) as err:
        raise _broken_document(text, at, source, str(err)) from err


def _broken_document(text: str, at: int, source: str, problem: str) -> DataError:
    return DataError(
        "the file is not valid JSON",
        where=f"{source}:{_line_of(text, at)}",
        found=problem,
        do="mend the file, or give it as .jsonl, where a broken line costs only itself",
    )


def _line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
