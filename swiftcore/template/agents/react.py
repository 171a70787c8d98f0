"""ReAct: Thought, Action, Action Input and Observation as lines of plain text.

Unlike ms-swift, arguments are JSON (there: a Python dict's repr), `Action:` starts on a line of its
own, and the user's system prompt stays in front of the instructions.

Source: Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models", arXiv:2210.03629.
"""

import json
import re
from typing import Any

from swiftcore.template.agents.base import ParsedText, dump_json, read_json_call
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span

_OBSERVATION = "Observation:"
_CALL = re.compile(r"^[ \t]*Action:[ \t]*(?P<name>[^\n]*)\n\s*Action Input:\s*", re.MULTILINE)


class ReactEnglish:
    """The English ReAct prompt."""

    name = "react_en"
    inline_responses = True
    stop_words: tuple[str, ...] = (_OBSERVATION,)

    def system(self, system: list[Span], *, own: bool, tools: list[dict[str, Any]]) -> list[Span]:
        """Describe the tools and the format; a family's default system prompt gives way to them."""
        spans = [*system, Span("\n\n")] if own and system else []
        spans.append(
            Span(
                "Answer the following questions as best you can. "
                "You have access to the following tools:\n\n"
            )
        )
        for tool in tools:
            spans += [Span(_describe(tool["function"]), Author.DATA), Span("\n\n")]
        names = ",".join(tool["function"]["name"] for tool in tools)
        spans += [
            Span(
                "Use the following format:\n\n"
                "Question: the input question you must answer\n"
                "Thought: you should always think about what to do\n"
                "Action: the action to take, should be one of ["
            ),
            Span(names, Author.DATA),
            Span(
                "]\nAction Input: the input to the action\n"
                "Observation: the result of the action\n"
                "... (this Thought/Action/Action Input/Observation can be repeated zero or more "
                "times)\nThought: I now know the final answer\n"
                "Final Answer: the final answer to the original input question\n\nBegin!\n"
            ),
        ]
        return spans

    def call(self, call: ToolCall, *, before: str) -> list[Span]:
        """Write one call as two lines."""
        gap = "\n" if before and not before.endswith("\n") else ""
        body = f"Action: {call.name}\nAction Input: {dump_json(call.arguments)}\n"
        return [Span(gap), Span(body, Author.ASSISTANT)]

    def end_calls(self) -> list[Span]:
        """Ask for the observation; generation stops here."""
        return [Span(_OBSERVATION)]

    def responses(self, contents: tuple[str, ...]) -> list[Span]:
        """Continue the answer with the observations."""
        spans: list[Span] = []
        for content in contents:
            if spans:
                spans.append(Span(_OBSERVATION))
            spans += [Span(" "), Span(content, Author.DATA), Span("\n")]
        return spans

    def parse(self, text: str) -> ParsedText:
        """Read each Action with its Action Input."""
        decoder = json.JSONDecoder()
        calls: list[ToolCall] = []
        problems: list[str] = []
        rest: list[str] = []
        position = 0
        for found in _CALL.finditer(text):
            if found.start() < position:
                continue
            rest.append(text[position : found.start()])
            try:
                arguments, position = decoder.raw_decode(text, found.end())
            except (ValueError, RecursionError):
                line, _, _ = text[found.end() :].partition("\n")
                problems.append(f"Action Input is not JSON: {line[:120]!r}")
                position = found.end() + len(line)
                continue
            outcome = read_json_call({"name": found["name"].strip(), "arguments": arguments})
            if isinstance(outcome, ToolCall):
                calls.append(outcome)
            else:
                problems.append(outcome)
        rest.append(text[position:])
        remaining = "".join(rest).strip()
        return ParsedText(calls, remaining.removesuffix(_OBSERVATION).rstrip(), problems)


def _describe(function: dict[str, Any]) -> str:
    name = function["name"]
    description = function.get("description", "")
    parameters = dump_json(function.get("parameters") or {})
    return (
        f"{name}: Call this tool to interact with the {name} API. "
        f"What is the {name} API useful for? {description} Parameters: {parameters} "
        "Format the arguments as a JSON object."
    )


REACT_EN = ReactEnglish()
