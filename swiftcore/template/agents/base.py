"""What an agent template must be able to do."""

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Span


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A model's answer, taken apart.

    Args:
        calls: the calls that could be read, in order.
        text: what the answer says beside the calls.
        problems: one sentence for each call that could not be read.
    """

    calls: list[ToolCall] = field(default_factory=list)
    text: str = ""
    problems: list[str] = field(default_factory=list)


class AgentTemplate(Protocol):
    """How one family writes tools, calls and responses."""

    @property
    def name(self) -> str:
        """Public name, that of ms-swift."""
        ...

    @property
    def inline_responses(self) -> bool:
        """Whether a response continues the answer instead of coming as a turn of its own."""
        ...

    @property
    def stop_words(self) -> tuple[str, ...]:
        """Texts that end an answer because a response must follow."""
        ...

    def system(self, system: list[Span], *, own: bool, tools: list[dict[str, Any]]) -> list[Span]:
        """Return the system prompt with the tools in it.

        Args:
            system: the system prompt so far, possibly empty.
            own: whether the user wrote it; a family's default may be replaced, the user's never.
            tools: the definitions.
        """
        ...

    def call(self, call: ToolCall, *, before: str) -> list[Span]:
        """Write one call. `before` is the answer's text up to here."""
        ...

    def end_calls(self) -> list[Span]:
        """Return what closes a run of calls."""
        ...

    def responses(self, contents: tuple[str, ...]) -> list[Span]:
        """Write the responses to a run of calls."""
        ...

    def parse(self, text: str) -> ParsedText:
        """Read calls back out of an answer."""
        ...


def dump_json(value: object) -> str:
    """Write JSON as it appears in prompts: order kept, characters not escaped."""
    return json.dumps(value, ensure_ascii=False)


def read_json_call(value: object) -> ToolCall | str:
    """Turn decoded JSON into a call, or say what is wrong with it."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return f"a call without a name: {dump_json(value)[:120]}"
    arguments = value.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return f"arguments of {value['name']!r} are not JSON: {arguments[:120]!r}"
    if not isinstance(arguments, dict):
        return f"arguments of {value['name']!r} are no object: {dump_json(arguments)[:120]}"
    return ToolCall(value["name"], arguments)


def find_json_calls(text: str, opening: str, closing: str) -> ParsedText:
    """Read JSON calls between two markers; a closing marker inside a JSON string does not count."""
    decoder = json.JSONDecoder()
    calls: list[ToolCall] = []
    problems: list[str] = []
    rest: list[str] = []
    position = 0
    while (start := text.find(opening, position)) >= 0:
        rest.append(text[position:start])
        body = start + len(opening)
        while body < len(text) and text[body].isspace():
            body += 1
        try:
            value, end = decoder.raw_decode(text, body)
        except (ValueError, RecursionError):
            end = text.find(closing, body)
            end = len(text) if end < 0 else end
            problems.append(f"a call is not JSON: {text[body:end].strip()[:120]!r}")
        else:
            outcome = read_json_call(value)
            if isinstance(outcome, ToolCall):
                calls.append(outcome)
            else:
                problems.append(outcome)
        close = text.find(closing, end)
        next_opening = text.find(opening, end)
        if close < 0 or 0 <= next_opening < close:
            problems.append("a call has no end marker")
            position = end
        else:
            if text[end:close].strip():
                problems.append(f"text after the JSON of a call: {text[end:close].strip()[:80]!r}")
            position = close + len(closing)
    rest.append(text[position:])
    return ParsedText(calls, "".join(rest).strip(), problems)
