"""Readers of JSON documents and JSON lines."""

import json
from collections.abc import Generator, Iterator
from typing import BinaryIO

from swiftcore.data.readers.json_document import JsonText
from swiftcore.data.readers.json_values import decode
from swiftcore.data.readers.lines import Parsed, excerpt, read_lines


def read_jsonl(stream: BinaryIO, source: str) -> Iterator[Parsed]:
    """Yield one value a line."""
    return read_jsonl_part(stream, 1, None)


def read_jsonl_part(stream: BinaryIO, first_line: int, size_bytes: int | None) -> Iterator[Parsed]:
    """Yield one value a line from here on, up to the line that reaches a number of bytes."""
    for number, line, problem in read_lines(stream, first_line, size_bytes):
        if problem is not None:
            yield Parsed(number, line, problem)
        elif isinstance(line, bytes) and not line.isspace() and line:
            yield _json_line(number, line)


def _json_line(number: int, line: bytes) -> Parsed:
    try:
        return Parsed(number, decode(line.rstrip(b"\r\n").decode("utf-8")))
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
    would be true: it raises instead. A row that is JSON but can't be taken (a key twice, nested
    too deep, too long) is skipped to its end and comes with its problem.
    """
    text = JsonText(stream, source)
    first = text.peek()
    if not first:
        return
    if text.is_json_lines():
        stream.seek(0)
        yield from read_jsonl(stream, source)
        return
    if first == "[":
        yield from _items(text)
    elif first == "{":
        yield from _object_rows(text)
    else:
        yield Parsed(text.line(), *text.take_value())
    if text.peek():
        raise text.broken("something follows the end of the document")


def _object_rows(text: JsonText) -> Iterator[Parsed]:
    """Yield the list under the key data, or the object itself where there is no such list."""
    value, problem = text.look_at_value()
    has_data = isinstance(value, dict) and isinstance(value.get("data"), list)
    if has_data or problem is not None:
        has_data = yield from _data_items(text)
        if has_data:
            return
        text.rewind()
        text.peek()
    yield Parsed(text.line(), *text.take_value())


def _data_items(text: JsonText) -> Generator[Parsed, None, bool]:
    has_data = False
    text.step()
    while text.peek() == '"':
        key, _ = text.take_value()
        if text.peek() != ":":
            raise text.broken("expected : after a key")
        text.step()
        if key == "data" and text.peek() == "[":
            if has_data:
                raise text.broken("the key 'data' stands in the document more than once")
            has_data = True
            yield from _items(text)
        else:
            text.skip_value()
        if text.peek() != ",":
            break
        text.step()
    if text.peek() != "}":
        raise text.broken("expected , or } after a value")
    text.step()
    return has_data


def _items(text: JsonText) -> Iterator[Parsed]:
    text.step()
    if text.peek() == "]":
        text.step()
        return
    while True:
        text.peek()
        line = text.line()
        yield Parsed(line, *text.take_value())
        mark = text.peek()
        if mark not in ("]", ","):
            raise text.broken("expected , or ] after a row")
        text.step()
        if mark == "]":
            return
