"""What a person sees of an answer: reasoning set apart, tool calls in a line each.

Where nobody looks (a pipe, a file) an answer is printed as the model wrote it.
"""

import json
from collections.abc import Iterable
from typing import TextIO

from swiftcore.errors import SwiftError
from swiftcore.template import Template

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
# A model's words may hold what moves a terminal's cursor, or worse.
_VISIBLE = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(0x20), *range(0x7F, 0xA0))
    if chr(code) not in "\n\t"
}


class ReasoningSplit:
    """Tells the reasoning in a growing answer from the rest; the marks count as reasoning.

    Args:
        marks: what begins and what ends reasoning.
    """

    def __init__(self, marks: tuple[str, str]) -> None:
        self._marks = marks
        self._is_open = False
        self._held = ""

    def push(self, text: str) -> list[tuple[bool, str]]:
        """Take the next piece; return (is reasoning, text) pieces that are certain."""
        pieces: list[tuple[bool, str]] = []
        text = self._held + text
        while True:
            mark = self._marks[self._is_open]
            before, found, after = text.partition(mark)
            if not found:
                break
            if self._is_open:
                pieces.append((True, before + mark))
            else:
                pieces += [(False, before), (True, mark)]
            self._is_open, text = not self._is_open, after
        keep = next((n for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), 0)
        pieces.append((self._is_open, text[: len(text) - keep]))
        self._held = text[len(text) - keep :]
        return [piece for piece in pieces if piece[1]]

    def finish(self) -> list[tuple[bool, str]]:
        """Return what was held back, as it might have begun a mark."""
        held, self._held = self._held, ""
        return [(self._is_open, held)] if held else []


class Screen:
    """Prints answers as they grow.

    Args:
        out: where to.
        template: knows the marks of reasoning, and how calls are written.
        is_styled: for a person at a terminal.
    """

    def __init__(self, out: TextIO, template: Template, *, is_styled: bool) -> None:
        self._out = out
        self._template = template
        self._is_styled = is_styled
        self._split = ReasoningSplit(template.thinking_marks)

    def begin(self) -> None:
        """Start an answer."""
        self._split = ReasoningSplit(self._template.thinking_marks)

    def add(self, text: str) -> None:
        """Print the next piece of the answer."""
        self._write(self._split.push(text) if self._is_styled else [(False, text)])

    def end(self, answer: str) -> None:
        """Finish the line, and say which tools the whole answer calls."""
        self._write(self._split.finish() if self._is_styled else [])
        self._out.write("\n")
        if self._is_styled:
            for call in self._calls(answer):
                self._out.write(f"  calls {call}\n")
        self._out.flush()

    def _write(self, pieces: Iterable[tuple[bool, str]]) -> None:
        for is_reasoning, text in pieces:
            shown = text.translate(_VISIBLE) if self._is_styled else text
            self._out.write(f"{_DIM}{shown}{_PLAIN}" if is_reasoning else shown)
        self._out.flush()

    def _calls(self, answer: str) -> list[str]:
        try:
            calls = self._template.parse_tool_calls(answer).calls
        except SwiftError:
            return []
        return [f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})" for call in calls]
