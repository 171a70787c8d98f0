"""Calls whose arguments are JSON: as one object, after a name, or between markers.

Reading uses a JSON decoder from the opening marker on, so that a closing marker inside a string
does not end a call.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from swiftcore.template.agents.base import CallPlace, ParsedText, Schemas
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span

_DECODER = json.JSONDecoder()
_SHOWN = 120


def dump_json(value: object) -> str:
    """Write JSON as it appears in prompts: order kept, characters not escaped."""
    return json.dumps(value, ensure_ascii=False)


def read_json_call(value: object) -> ToolCall | str:
    """Turn decoded JSON into a call, or say what is wrong with it."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return f"a call without a name: {dump_json(value)[:_SHOWN]}"
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return f"arguments of {value['name']!r} are not JSON: {arguments[:_SHOWN]!r}"
    if not isinstance(arguments, dict):
        return f"arguments of {value['name']!r} are no object: {dump_json(arguments)[:_SHOWN]}"
    return ToolCall(value["name"], arguments)


def decode_at(text: str, position: int) -> tuple[object, int] | None:
    """Return the JSON value that begins at `position`, after whitespace, and where it ends."""
    while position < len(text) and text[position].isspace():
        position += 1
    try:
        return _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError):
        return None


class CallReader:
    """Collects what a parser finds, so that nothing is lost between calls."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._calls: list[ToolCall] = []
        self._problems: list[str] = []
        self._rest: list[str] = []
        self.position = 0

    def skip(self, start: int, end: int) -> None:
        """Keep the words up to `start` as text, and go on at `end`."""
        self._rest.append(self._text[self.position : start])
        self.position = end

    def add(self, outcome: ToolCall | str) -> None:
        """Take a call, or what is wrong with one."""
        if isinstance(outcome, ToolCall):
            self._calls.append(outcome)
        else:
            self._problems.append(outcome)

    def headed(
        self,
        head: re.Pattern[str],
        read: Callable[[str, int], tuple[Any, int] | None],
        notation: str,
    ) -> Iterator[tuple[re.Match[str], Any, int]]:
        """Yield each head with the arguments behind it and where they end; the caller skips them.

        Arguments that `read` can't make out are noted, with their head left out of the text.
        """
        while (found := head.search(self._text, self.position)) is not None:
            outcome = read(self._text, found.end())
            if outcome is None:
                shown = self._text[found.end() : found.end() + _SHOWN]
                self.add(f"arguments of {found['name']!r} are not {notation}: {shown!r}")
                self.skip(found.start(), found.end())
            else:
                yield found, *outcome

    def result(self, *markers: str) -> ParsedText:
        """Return what was found; `markers` left over in the text around the calls are no words."""
        rest = "".join([*self._rest, self._text[self.position :]])
        for marker in markers:
            rest = rest.replace(marker, "")
        return ParsedText(self._calls, rest.strip(), self._problems)


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """`{"name": ..., "arguments": {...}}` between markers.

    Args:
        opening: before each call.
        closing: after each call.
        gap: between two calls.
    """

    opening: str
    closing: str
    gap: str = ""

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call."""
        gap = "" if place.is_first else self.gap
        body = dump_json({"name": call.name, "arguments": call.arguments})
        return [Span(gap + self.opening), Span(body, Author.ASSISTANT), Span(self.closing)]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read the JSON between the markers, with or without the whitespace around it."""
        opening, closing = self.opening.strip(), self.closing.strip()
        reader = CallReader(text)
        # One search for both ends: looked for again after each marker, hostile text costs O(n^2).
        last_closing = text.rfind(closing)
        while (start := text.find(opening, reader.position)) >= 0:
            body = start + len(opening)
            found = decode_at(text, body)
            if found is None:
                end = text.find(closing, body) if body <= last_closing else len(text)
                reader.add(f"a call is not JSON: {text[body:end].strip()[:_SHOWN]!r}")
            else:
                value, end = found
                reader.add(read_json_call(value))
            close = text.find(closing, end) if end <= last_closing else -1
            following = text.find(opening, end)
            if close < 0 or 0 <= following < close:
                reader.add("a call has no end marker")
                reader.skip(start, end)
                continue
            if text[end:close].strip():
                reader.add(f"text after the JSON of a call: {text[end:close].strip()[:80]!r}")
            reader.skip(start, close + len(closing))
        return reader.result()


@dataclass(frozen=True, slots=True)
class NamedCalls:
    """A name, then its arguments as a JSON object.

    Args:
        opening: before the name.
        middle: between name and arguments.
        closing: after the arguments.
        section: before and after a run of calls.
        gap: between two calls.
        text_gap: between words and a run of calls.
        write_name: what stands for the name, given the call's number; default the name itself.
        name: pattern of what `write_name` writes, with a group `name`.
    """

    opening: str
    middle: str
    closing: str
    section: tuple[str, str] = ("", "")
    gap: str = ""
    text_gap: str = ""
    write_name: Callable[[ToolCall, int], list[Span]] | None = None
    name: str = r"(?P<name>[^\n<>]+?)"

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call."""
        before = place.gap(self.text_gap) + self.section[0] if place.is_first else self.gap
        name = [Span(call.name, Author.ASSISTANT)]
        if self.write_name is not None:
            name = self.write_name(call, place.number)
        return [
            Span(before + self.opening),
            *name,
            Span(self.middle),
            Span(dump_json(call.arguments), Author.ASSISTANT),
            Span(self.closing + (self.section[1] if place.is_last else "")),
        ]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read each name with the JSON after it."""
        head = re.compile(loosely(self.opening) + self.name + loosely(self.middle))
        closing = re.compile(r"\s*" + loosely(self.closing.strip()))
        reader = CallReader(text)
        while (found := head.search(text, reader.position)) is not None:
            name = found["name"].strip()
            decoded = decode_at(text, found.end())
            if decoded is None:
                end = text.find(self.closing.strip() or "\n", found.end())
                end = len(text) if end < 0 else end
                shown = text[found.end() : end].strip()[:_SHOWN]
                reader.add(f"arguments of {name!r} are not JSON: {shown!r}")
            else:
                arguments, end = decoded
                reader.add(read_json_call({"name": name, "arguments": arguments}))
            closed = closing.match(text, end)
            if closed is None:
                reader.add(f"the call of {name!r} has no end marker")
            reader.skip(found.start(), end if closed is None else closed.end())
        opening = self.opening.strip()
        if opening and text.find(opening, reader.position) >= 0:
            reader.add(f"a call without a name: {text[reader.position :].strip()[:_SHOWN]!r}")
        return reader.result(*(marker for marker in self.section if marker))


def loosely(literal: str) -> str:
    """Return a pattern for a literal in which runs of whitespace may have any length."""
    parts = re.split(r"(\s+)", literal)
    return "".join(r"\s*" if part.isspace() else re.escape(part) for part in parts if part)
