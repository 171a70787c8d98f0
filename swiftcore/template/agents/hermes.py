"""Hermes: tools as JSON in the system prompt, calls and responses between XML-like tags.

Source: the format of the published Qwen2.5 chat template.
"""

from typing import Any

from swiftcore.template.agents.base import ParsedText, dump_json, find_json_calls
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span

_INTRODUCTION = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_INSTRUCTION = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    'within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, '
    '"arguments": <args-json-object>}\n</tool_call>'
)


class Hermes:
    """The agent template of Qwen and of many tunes."""

    name = "hermes"
    inline_responses = False
    stop_words: tuple[str, ...] = ()

    def system(self, system: list[Span], *, own: bool, tools: list[dict[str, Any]]) -> list[Span]:
        """Append the tools to the system prompt."""
        spans = [*system, Span(_INTRODUCTION)]
        for tool in tools:
            spans += [Span("\n"), Span(dump_json(tool), Author.DATA)]
        return [*spans, Span(_INSTRUCTION)]

    def call(self, call: ToolCall, *, before: str) -> list[Span]:
        """Write one call; calls in a row stand on lines of their own."""
        body = dump_json({"name": call.name, "arguments": call.arguments})
        gap = "\n" if before.endswith("</tool_call>") else ""
        return [
            Span(f"{gap}<tool_call>\n"),
            Span(body, Author.ASSISTANT),
            Span("\n</tool_call>"),
        ]

    def end_calls(self) -> list[Span]:
        """Nothing closes a run of calls: the turn ends."""
        return []

    def responses(self, contents: tuple[str, ...]) -> list[Span]:
        """Wrap each response in its tags."""
        spans: list[Span] = []
        for content in contents:
            opening = "\n<tool_response>\n" if spans else "<tool_response>\n"
            spans += [Span(opening), Span(content, Author.DATA), Span("\n</tool_response>")]
        return spans

    def parse(self, text: str) -> ParsedText:
        """Read the JSON between the tags."""
        return find_json_calls(text, "<tool_call>", "</tool_call>")


HERMES = Hermes()
