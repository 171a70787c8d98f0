"""Gemma 4's notation: JSON without escapes, whose texts stand between tokens of their own.

`{city:<|"|>Paris<|"|>,days:3}`: keys are bare and sorted, texts are as they are.

Source: the published chat template of Gemma 4.
"""

import json
import re
from collections.abc import Mapping

from swiftcore.errors import DataError
from swiftcore.template.spans import Author, Span

QUOTE = '<|"|>'
_SCALAR = re.compile(r"true|false|null|-?\d[\d.eE+-]*")
_KEY = re.compile(r'(?P<key>[^\s{}\[\]:,<>"|][^{}\[\]:,<>"|\n]*?):')
_MAX_DEPTH = 200


def write_notation(value: object, author: Author) -> list[Span]:
    """Write a value; its quotation marks are the template's, what is between them the author's.

    Raises:
        DataError: a text holds the quotation mark, or a key is none.
    """
    if isinstance(value, str):
        if QUOTE in value:
            raise _refused("a text holds Gemma's quotation mark", value)
        return [Span(QUOTE), Span(value, author), Span(QUOTE)]
    if isinstance(value, Mapping):
        spans = [Span("{", author)]
        for index, (key, inner) in enumerate(sorted(value.items())):
            if not _KEY.fullmatch(f"{key}:"):
                raise _refused("a key can't be written in Gemma's notation", str(key))
            spans += [Span(f"{',' if index else ''}{key}:", author), *write_notation(inner, author)]
        return [*spans, Span("}", author)]
    if isinstance(value, list | tuple):
        spans = [Span("[", author)]
        for index, inner in enumerate(value):
            spans += [Span("," if index else "", author), *write_notation(inner, author)]
        return [*spans, Span("]", author)]
    return [Span(json.dumps(value), author)]


def read_object(text: str, position: int) -> tuple[dict[str, object], int] | None:
    """Read the object that begins at `position`, and say where it ends."""
    return _read_object(text, position + 1, 0) if text.startswith("{", position) else None


def _read(text: str, position: int, depth: int) -> tuple[object, int] | None:
    if depth > _MAX_DEPTH:
        return None
    if text.startswith(QUOTE, position):
        end = text.find(QUOTE, position + len(QUOTE))
        return None if end < 0 else (text[position + len(QUOTE) : end], end + len(QUOTE))
    if text.startswith("{", position):
        return _read_object(text, position + 1, depth)
    if text.startswith("[", position):
        return _read_list(text, position + 1, depth)
    scalar = _SCALAR.match(text, position)
    if scalar is None:
        return None
    try:
        return json.loads(scalar.group()), scalar.end()
    except ValueError:
        return None


def _read_object(text: str, position: int, depth: int) -> tuple[dict[str, object], int] | None:
    value: dict[str, object] = {}
    if text.startswith("}", position):
        return value, position + 1
    while (key := _KEY.match(text, position)) is not None:
        found = _read(text, key.end(), depth + 1)
        if found is None:
            return None
        value[key["key"]], position = found
        if text.startswith("}", position):
            return value, position + 1
        if not text.startswith(",", position):
            return None
        position += 1
    return None


def _read_list(text: str, position: int, depth: int) -> tuple[object, int] | None:
    value: list[object] = []
    if text.startswith("]", position):
        return value, position + 1
    while (found := _read(text, position, depth + 1)) is not None:
        inner, position = found
        value.append(inner)
        if text.startswith("]", position):
            return value, position + 1
        if not text.startswith(",", position):
            return None
        position += 1
    return None


def _refused(message: str, found: str) -> DataError:
    return DataError(
        message,
        where="tool_call.arguments",
        found=found[:80],
        expected="texts and keys that can be read back",
        do="change it, or choose an agent template whose calls are JSON, such as hermes",
    )
