"""Gemma 3 and 4: calls as Python, or in Gemma 4's own notation.

Sources: the published prompt for Gemma 3's Python-like calls, and the chat template of Gemma 4.
"""

import json
import re
from collections.abc import Mapping, Sequence

from swiftcore.errors import DataError
from swiftcore.template.agents.base import (
    AgentTemplate,
    CallPlace,
    ParsedText,
    ResponseForm,
    Schemas,
    Tool,
    ToolResponse,
    ToolsForm,
)
from swiftcore.template.agents.json_calls import CallReader, decode_at, dump_json
from swiftcore.template.agents.notation import QUOTE, read_object, write_notation
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span


class _PythonCalls:
    """A Python list of calls with keyword arguments, whose values are JSON."""

    _name = re.compile(r"\s*(?P<name>[A-Za-z_][\w.-]*)\(")
    _key = re.compile(r"\s*(?P<key>[A-Za-z_]\w*)\s*=\s*")
    _words = re.compile(r"(?P<word>True|False|None)\b")

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call.

        Raises:
            DataError: an argument's name is no Python name.
        """
        for key in call.arguments:
            if not re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII):
                raise DataError(
                    "an argument's name can't be written as a Python keyword argument",
                    where="tool_call.arguments",
                    found=key[:80],
                    expected="letters, digits and underscores",
                    do="rename it, or choose an agent template whose calls are JSON",
                )
        inner = ", ".join(f"{key}={dump_json(value)}" for key, value in call.arguments.items())
        return [
            Span("[" if place.is_first else ", "),
            Span(f"{call.name}({inner})", Author.ASSISTANT),
            Span("]" if place.is_last else ""),
        ]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read lists of calls; another list is text."""
        reader = CallReader(text)
        start = 0
        while (start := text.find("[", start)) >= 0:
            calls, end, problem = self._list(text, start + 1)
            if problem:
                reader.add(problem)
            if not calls or problem:
                start += 1
                continue
            for call in calls:
                reader.add(call)
            reader.skip(start, end)
            start = end
        return reader.result()

    def _list(self, text: str, position: int) -> tuple[list[ToolCall], int, str]:
        calls: list[ToolCall] = []
        while (found := self._name.match(text, position)) is not None:
            arguments: dict[str, object] = {}
            position = found.end()
            while (key := self._key.match(text, position)) is not None:
                decoded = self._value(text, key.end())
                if decoded is None:
                    shown = text[key.end() : key.end() + 80]
                    return [], position, f"{found['name']}: {key['key']} is not JSON: {shown!r}"
                arguments[key["key"]], position = decoded
                position = _after(text, position, ",")
            if text[_space(text, position) :][:1] != ")":
                return [], position, f"the call of {found['name']!r} has no end"
            calls.append(ToolCall(found["name"], arguments))
            position = _after(text, _space(text, position) + 1, ",")
        if calls and text[_space(text, position) :][:1] == "]":
            return calls, _space(text, position) + 1, ""
        return [], position, "a list of calls has no end" if calls else ""

    def _value(self, text: str, position: int) -> tuple[object, int] | None:
        if (word := self._words.match(text, position)) is not None:
            return {"True": True, "False": False, "None": None}[word["word"]], word.end()
        if text[position : position + 1] == "'":
            closing = re.compile(r"'((?:[^'\\\n]|\\.)*)'").match(text, position)
            return None if closing is None else (_unescaped(closing[1]), closing.end())
        return decode_at(text, position)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), text)


def _space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _after(text: str, position: int, mark: str) -> int:
    at = _space(text, position)
    return at + 1 if text[at : at + 1] == mark else position


def _python_tools(tools: Sequence[Tool]) -> list[Span]:
    body = json.dumps(list(tools), ensure_ascii=False, indent=4)
    return [
        Span(
            "Tools (functions) are available. If you decide to invoke one or more of the tools, "
            "you must respond with a python list of the function calls.\n"
            "Example Format: [func_name1(params_name1=params_value1, params_name2=params_value2"
            "...), func_name2(params)] \n"
            "Do not use variables. DO NOT USE MARKDOWN SYNTAX. You SHOULD NOT include any other "
            "text in the response if you call a function. If none of the functions can be used, "
            "point it out. If you lack the parameters required by the function, also point it "
            "out.\nHere is a list of functions in JSON format that you can invoke.\n"
        ),
        Span(body, Author.DATA),
    ]


GEMMA3 = AgentTemplate(
    "gemma3",
    ToolsForm(_python_tools, place="question"),
    _PythonCalls(),
    ResponseForm(each=("<tool_response>\n", "</tool_response>"), gap="\n"),
)


class _NotationCalls:
    """`<|tool_call>call:NAME{key:value,...}<tool_call|>`."""

    _head = re.compile(r"<\|tool_call>\s*call:(?P<name>[^{}<>\n]+?)\s*(?=\{)")

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call.

        Raises:
            DataError: a text holds the notation's quotation mark.
        """
        return [
            Span("<|tool_call>call:"),
            Span(call.name, Author.ASSISTANT),
            *write_notation(call.arguments, Author.ASSISTANT),
            # The model asks for the response itself: that is where generation stops.
            Span("<tool_call|><|tool_response>" if place.is_last else "<tool_call|>"),
        ]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read each call."""
        reader = CallReader(text)
        calls = reader.headed(self._head, read_object, "in Gemma's notation")
        for found, arguments, end in calls:
            reader.add(ToolCall(found["name"], arguments))
            closing = "<tool_call|>"
            closed = text.startswith(closing, end)
            if not closed:
                reader.add(f"the call of {found['name']!r} has no end marker")
            reader.skip(found.start(), end + len(closing) * closed)
        if "<|tool_call>" in text[reader.position :]:
            reader.add(f"a call without a name: {text[reader.position :].strip()[:120]!r}")
        return reader.result("<|tool_response>")


def _declared(tools: Sequence[Tool]) -> list[Span]:
    spans: list[Span] = []
    for tool in tools:
        function = tool["function"]
        spans += [
            Span("<|tool>declaration:"),
            Span(function["name"], Author.DATA),
            Span("{description:"),
            *write_notation(str(function.get("description") or ""), Author.DATA),
        ]
        parameters = function.get("parameters")
        if isinstance(parameters, Mapping) and parameters:
            spans += [Span(",parameters:{"), *_joined(_parameters(parameters)), Span("}")]
        spans.append(Span("}<tool|>"))
    return spans


def _parameters(schema: Mapping[str, object]) -> list[list[Span]]:
    parts: list[list[Span]] = []
    properties, required, kind = (
        schema.get("properties"),
        schema.get("required"),
        schema.get("type"),
    )
    if isinstance(properties, Mapping) and properties:
        parts.append([Span("properties:{"), *_properties(properties), Span("}")])
    if required:
        parts.append([Span("required:"), *write_notation(required, Author.DATA)])
    if isinstance(kind, str) and kind:
        parts.append([Span("type:"), *write_notation(kind.upper(), Author.DATA)])
    return parts


def _properties(properties: Mapping[str, object]) -> list[Span]:
    parts = [
        [Span(key, Author.DATA), Span(":{"), *_joined(_property(fields)), Span("}")]
        for key, fields in sorted(properties.items())
        if isinstance(fields, Mapping)
    ]
    return _joined(parts)


def _property(fields: Mapping[str, object]) -> list[list[Span]]:
    kind = fields.get("type")
    kind = kind.upper() if isinstance(kind, str) else ""
    parts: list[list[Span]] = []
    if fields.get("description"):
        parts.append([Span("description:"), *write_notation(fields["description"], Author.DATA)])
    if kind == "STRING" and fields.get("enum"):
        parts.append([Span("enum:"), *write_notation(fields["enum"], Author.DATA)])
    items = fields.get("items")
    if kind == "ARRAY" and isinstance(items, Mapping) and items:
        parts.append([Span("items:{"), *_joined(_items(items)), Span("}")])
    if fields.get("nullable"):
        parts.append([Span("nullable:true")])
    if kind == "OBJECT":
        inner = fields.get("properties")
        if isinstance(inner, Mapping):
            parts.append([Span("properties:{"), *_properties(inner), Span("}")])
        if fields.get("required"):
            parts.append([Span("required:"), *write_notation(fields["required"], Author.DATA)])
    return [*parts, [Span("type:"), *write_notation(kind, Author.DATA)]]


def _items(items: Mapping[str, object]) -> list[list[Span]]:
    parts: list[list[Span]] = []
    for key, value in sorted(items.items()):
        if key == "properties" and isinstance(value, Mapping):
            parts.append([Span("properties:{"), *_properties(value), Span("}")])
        elif value is not None:
            shown = value.upper() if key == "type" and isinstance(value, str) else value
            parts.append([Span(f"{key}:", Author.DATA), *write_notation(shown, Author.DATA)])
    return parts


def _joined(parts: list[list[Span]]) -> list[Span]:
    return [
        span for index, part in enumerate(parts) for span in ([Span(","), *part] if index else part)
    ]


def _response(response: ToolResponse) -> list[Span]:
    name = response.call.name if response.call is not None else "unknown"
    return [
        Span("response:"),
        Span(name, Author.DATA),
        Span("{value:"),
        *write_notation(response.content.replace(QUOTE, '"'), Author.DATA),
        Span("}<tool_response|>"),
    ]


GEMMA4 = AgentTemplate(
    "gemma4",
    ToolsForm(_declared, glue=""),
    _NotationCalls(),
    ResponseForm(write_one=_response, gap="<|tool_response>", own_turn=("", ""), continues=True),
    stop_words=("<|tool_response>",),
    calls_end_turn=True,
    control_tokens=("<|tool_response>", QUOTE),
)
