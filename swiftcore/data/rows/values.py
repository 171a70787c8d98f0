"""Single values of raw rows: text, numbers, and structures that a table stored as text."""

import ast
import json
import re

from swiftcore.data.quarantine import RejectedRow

# Literals longer than this are refused: ast.literal_eval takes time and memory without bound.
_MAX_LITERAL_CHARACTERS = 1_000_000
# The largest number that every later stage (int64 columns, float64 weights) holds.
_MAX_NUMBER = 2**63 - 1
# Digits that stand for a number and nothing else: "007" is a name.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")


def is_clean(text: str) -> bool:
    """Tell whether text holds neither NUL nor a lone surrogate, which no file or model can take."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_of(value: object, where: str) -> str:
    """Return a text value: a string, or a number's digits.

    Raises:
        RejectedRow: the value is no text, or holds a NUL character or a lone surrogate.
    """
    if isinstance(value, str):
        if is_clean(value):
            return value
        if "\0" in value:
            raise RejectedRow(f"{where} holds a NUL character")
        raise RejectedRow(f"{where} holds a lone surrogate, which is no valid Unicode")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json_text(value, where)
    raise RejectedRow(f"{where} is {kind_of(value)}, expected text")


def number_of(value: object, where: str) -> int | float:
    """Return a number, also one that a table stored as text.

    Raises:
        RejectedRow: the value is no finite number of at most 64 bits.
    """
    found = _number_in(value) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise RejectedRow(f"{where} is {kind_of(value)}, expected a number")
    if not abs(found) <= _MAX_NUMBER:
        raise RejectedRow(f"{where} is a number out of range")
    return found


def scalar_of(value: object, where: str) -> object:
    """Return a number or boolean, also one stored as text; any other text as it is.

    Raises:
        RejectedRow: the value is none of them.
    """
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return number_of(value, where)
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    found = _number_in(value)
    return text_of(value, where) if found is None else number_of(found, where)


def _number_in(text: str) -> int | float | None:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    return float(text) if found[1] or found[2] else int(text)


def parse_literal(text: str, column: str) -> object:
    """Parse a structure that a table stored as text: JSON, or a Python literal.

    Raises:
        RejectedRow: it is neither.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass  # a Python literal comes next; what is neither is reported below
    try:
        if len(text) > _MAX_LITERAL_CHARACTERS:
            raise ValueError("too long for a Python literal")
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as err:
        raise RejectedRow(f"{column} is text that is neither JSON nor a Python literal") from err


def json_text(value: object, where: str) -> str:
    """Return a value as JSON text, keys in their order and other scripts unescaped.

    Raises:
        RejectedRow: the value has no JSON form, or is not valid Unicode.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as err:
        raise RejectedRow(f"{where} holds a lone surrogate, which is no valid Unicode") from err
    except (TypeError, ValueError, RecursionError) as err:
        raise RejectedRow(f"{where} has no JSON form: {err}") from err
    return text


def kind_of(value: object) -> str:
    """Name a value's type in JSON's words."""
    names: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "text"),
        ((list, tuple), "a list"),
        (dict, "an object"),
    ]
    if value is None:
        return "null"
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)
