"""What a rendering may use up: time, steps, and the characters and list items it builds.

Python can't be stopped inside one call, so whatever could make something large is measured before
it is done, and everything that was made is charged to the rendering's budget.
"""

import re
import time
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Any

MAX_SECONDS = 5.0
MAX_STEPS = 2_000_000
MAX_CHARACTERS = 20_000_000
"""Of one text; all texts and lists of a rendering together may have ten times as many."""

_MAX_ITEMS = 1_000_000
_MAX_WIDTH = 10_000
_MAX_BITS = 4096
_WIDTH = re.compile(r"[%{][^%{}\s]{0,8}\d{5,}|%[^%\s]{0,8}\*")


class LimitReached(Exception):
    """A template used more than it may."""


class Budget:
    """What one rendering has left."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._characters = 10 * MAX_CHARACTERS
        self._deadline = time.monotonic() + MAX_SECONDS

    def step(self) -> None:
        """Count one turn of a loop.

        Raises:
            LimitReached: there were too many, or time is up.
        """
        self._steps -= 1
        if self._steps < 0:
            raise LimitReached(f"more than {MAX_STEPS} steps")
        if self._steps % 64 == 0:
            self.check_time()

    def check_time(self) -> None:
        """Stop a rendering that takes too long.

        Raises:
            LimitReached: time is up.
        """
        if time.monotonic() > self._deadline:
            raise LimitReached(f"more than {MAX_SECONDS:.0f} seconds")

    def build(self, size: int, *, items: bool = False) -> None:
        """Charge for a text of `size` characters, or a list of as many items.

        Raises:
            LimitReached: it is too large, or it comes after too many others.
        """
        if size > (_MAX_ITEMS if items else MAX_CHARACTERS):
            what = f"list of more than {_MAX_ITEMS} items" if items else "text of more than "
            raise LimitReached(f"a {what}" + ("" if items else f"{MAX_CHARACTERS} characters"))
        self._characters -= 8 * size if items else size  # an item is a pointer
        if self._characters < 0:
            raise LimitReached(f"more than {10 * MAX_CHARACTERS} characters built on the way")

    def charge(self, value: object) -> None:
        """Charge for a text or list that was made."""
        if isinstance(value, str):
            self.build(len(value))
        elif isinstance(value, list | tuple):
            self.build(len(value), items=True)


# One compiled template serves all threads; each rendering has its own budget.
BUDGET: ContextVar[Budget] = ContextVar("budget")


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Check `left operator right` before it is done.

    Raises:
        LimitReached: the result would be too large.
    """
    budget = BUDGET.get()
    budget.step()
    if operator == "%":
        if isinstance(left, str):
            check_widths(left)
            budget.build(len(left) + _printed_size(right))
        return
    if operator == "**":
        if any(isinstance(side, int) and abs(side) > 1000 for side in (left, right)):
            raise LimitReached("a power of large numbers")
        return
    if isinstance(left, int) and isinstance(right, int):
        if operator == "*" and left.bit_length() + right.bit_length() > _MAX_BITS:
            raise LimitReached(f"a number of more than {_MAX_BITS} bits")
        return
    sides = [side for side in (left, right) if isinstance(side, str | list | tuple)]
    if not sides:
        return
    is_list = not isinstance(sides[0], str)
    if operator == "*":
        times = right if sides[0] is left else left
        budget.build(len(sides[0]) * max(times, 0) if isinstance(times, int) else 0, items=is_list)
    else:
        budget.build(sum(map(len, sides)), items=is_list)


def check_call(function: object, arguments: Sequence[Any], names: dict[str, Any]) -> None:
    """Check the call of a text's method before it is done.

    Raises:
        LimitReached: the result would be too large.
    """
    budget = BUDGET.get()
    budget.step()
    budget.check_time()
    # Jinja wraps `str.format`, and keeps the method in `__wrapped__`.
    method = getattr(function, "__wrapped__", function)
    text = getattr(method, "__self__", None)
    if not isinstance(text, str):
        return
    name = getattr(method, "__name__", "")
    if name == "replace" and len(arguments) >= 2:
        check_replace(text, arguments[0], arguments[1])
    elif name == "join" and arguments and isinstance(arguments[0], list | tuple):
        check_joined(arguments[0], text)
    elif name in ("format", "format_map"):
        check_widths(text, *arguments, *names.values())
        fields = text.count("{") + 1
        sizes = (_printed_size(value) for value in (*arguments, *names.values()))
        budget.build(len(text) + fields * max(sizes, default=0))


def check_widths(text: str, *arguments: object) -> None:
    """Refuse what pads a short text to any length: "%999999999d", "{:999999999}".format.

    Raises:
        LimitReached: there is such a width.
    """
    wide = any(isinstance(value, int) and value > _MAX_WIDTH for value in arguments)
    if wide or _WIDTH.search(text):
        raise LimitReached(f"a width of more than {_MAX_WIDTH}")


def check_replace(text: str, old: object, new: object) -> None:
    """Refuse a replacement whose result would be too large.

    Raises:
        LimitReached: it is.
    """
    if isinstance(old, str) and isinstance(new, str):
        times = text.count(old) if old else len(text) + 1
        BUDGET.get().build(len(text) + times * max(len(new) - len(old), 0))


def check_joined(items: Iterable[Any], separator: object = "") -> None:
    """Refuse a joined text that would be too large.

    Raises:
        LimitReached: it is.
    """
    gap = len(separator) if isinstance(separator, str) else 0
    BUDGET.get().build(sum(gap + _printed_size(item) for item in items))


def _printed_size(value: object) -> int:
    """Return about how many characters a value has when it is printed."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_printed_size(key) + _printed_size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(map(_printed_size, value))
    return 8
