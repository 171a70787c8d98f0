"""Decoding JSON values strictly: no NaN, and no key twice in one object."""

import json
import re
from collections.abc import Callable

_SPACE = re.compile(r"[ \t\r\n]*")


def decode(text: str) -> object:
    """Return the JSON value a text holds.

    Raises:
        ValueError: it holds none, something follows it, a key stands in one object twice, or a
            number is no JSON; `json.JSONDecodeError` when the text is no JSON at all.
        RecursionError: it is nested too deep.
    """
    try:
        value, end = _SCAN(text, 0)
    except StopIteration:
        return _DECODER.decode(text)
    # The scanner takes neither leading nor trailing space; the slow way does, and names columns.
    return value if end == len(text) else _DECODER.decode(text)


def decode_at(text: str, at: int) -> tuple[object, int]:
    """Return the JSON value that starts at a place, and where it ends.

    Raises:
        ValueError: as `decode`.
        RecursionError: it is nested too deep.
    """
    return _DECODER.raw_decode(text, at)


def skip_space(text: str, at: int) -> int:
    """Return the place of the next character that is no JSON white space."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:100]!r} stands in one object more than once")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
# typeshed does not know the attribute; json.JSONDecoder documents none, and has had it since 2.6.
_SCAN: Callable[[str, int], tuple[object, int]] = vars(_DECODER)["scan_once"]
