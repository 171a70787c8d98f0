"""gpt-oss: calls in the harmony format, to a recipient in the commentary channel.

Tools stand as TypeScript in the developer message; a call ends with `<|call|>`, a response comes
from the function itself.

Source: the published chat template of gpt-oss.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

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
from swiftcore.template.agents.json_calls import (
    CallReader,
    decode_at,
    dump_json,
    read_json_call,
)
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span

_ARRAYS = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}
_MAX_INNER = 50


class _HarmonyCalls:
    """` to=functions.NAME<|channel|>commentary json<|message|>{...}<|call|>`."""

    _head = re.compile(
        r"(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)?\s*to=functions\.(?P<name>[\w.-]+)"
        r"(?:<\|channel\|>commentary)?\s*(?:<\|constrain\|>)?\s*(?:json)?\s*<\|message\|>"
    )
    _message = re.compile(
        r"(?:<\|start\|>assistant)?<\|channel\|>(?P<channel>analysis|commentary|final)<\|message\|>"
        r"(?P<text>.*?)(?=<\|end\|>|<\|return\|>|<\|start\|>|<\|call\|>|<\|channel\|>|\Z)",
        re.DOTALL,
    )

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call; words before it, and a second call, begin a message anew."""
        begins = "<|start|>assistant" if not place.is_first or place.before else ""
        if place.is_first and place.before and not place.before.endswith("<|end|>"):
            begins = "<|end|>" + begins
        return [
            Span(f"{begins} to=functions."),
            Span(call.name, Author.ASSISTANT),
            Span("<|channel|>commentary json<|message|>"),
            Span(dump_json(call.arguments), Author.ASSISTANT),
            Span("<|call|>"),
        ]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read messages to functions; the other messages are text."""
        reader = CallReader(text)
        for found, arguments, end in reader.headed(self._head, decode_at, "JSON"):
            reader.add(read_json_call({"name": found["name"], "arguments": arguments}))
            closed = re.compile(r"\s*(?:<\|call\|>)?").match(text, end)
            reader.skip(found.start(), end if closed is None else closed.end())
        parsed = reader.result()
        said = [found["text"] for found in self._message.finditer(parsed.text)]
        rest = "\n".join(said) if said else parsed.text.replace("<|end|>", "")
        return ParsedText(parsed.calls, rest.strip(), parsed.problems)


def _type(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "any"
    declared = schema.get("type")
    if declared == "array":
        null = " | null" if schema.get("nullable") else ""
        return _array(schema.get("items")) + null
    if isinstance(declared, list) and declared:
        return " | ".join(map(str, declared))
    if schema.get("oneOf"):
        return _variants(schema["oneOf"])
    if declared == "string":
        if schema.get("enum"):
            return '"' + '" | "'.join(map(str, schema["enum"])) + '"'
        return "string | null" if schema.get("nullable") else "string"
    if declared in _ARRAYS:
        return _ARRAYS[declared]
    if declared != "object":
        return "any"
    return _object(schema)


def _object(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return "object"
    required = schema.get("required") or ()
    inner = ", ".join(
        f"{name}{'' if name in required else '?'}: {_type(fields)}"
        for name, fields in properties.items()
    )
    return "{\n" + inner + "}"


def _array(items: Any) -> str:
    if not isinstance(items, Mapping) or not items:
        return "any[]"
    if items.get("type") in _ARRAYS:
        return _ARRAYS[items["type"]] + "[]"
    inner = _type(items)
    return "any[]" if inner == "object | object" or len(inner) > _MAX_INNER else inner + "[]"


def _variants(variants: Any) -> str:
    kinds = [variant for variant in variants if isinstance(variant, Mapping)]
    if len(kinds) > 1 and any(kind.get("type") == "object" for kind in kinds):
        return "any"
    return " | ".join(map(_type, kinds)) or "any"


def _function(function: Mapping[str, Any]) -> str:
    text = f"// {function.get('description') or ''}\ntype {function['name']} = "
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if not isinstance(parameters, Mapping) or not isinstance(properties, Mapping) or not properties:
        return text + "() => any;\n\n"
    required = parameters.get("required") or ()
    text += "(_: {\n"
    for name, fields in properties.items():
        fields = fields if isinstance(fields, Mapping) else {}
        if fields.get("description"):
            text += f"// {fields['description']}\n"
        text += f"{name}{'' if name in required else '?'}: {_type(fields)}"
        if "default" in fields:
            default = fields["default"]
            shown = default if fields.get("enum") else dump_json(default)
            text += f", // default: {shown}"
        text += ",\n"
    return text + "}) => any;\n\n"


def _namespace(tools: Sequence[Tool]) -> list[Span]:
    shown = "".join(_function(tool["function"]) for tool in tools)
    return [
        Span("# Tools\n\n## functions\n\nnamespace functions {\n\n"),
        Span(shown, Author.DATA),
        Span("} // namespace functions"),
    ]


def _response(response: ToolResponse) -> list[Span]:
    name = response.call.name if response.call is not None else "unknown"
    return [
        Span("<|start|>functions."),
        Span(name, Author.DATA),
        Span(" to=assistant<|channel|>commentary<|message|>"),
        Span(dump_json(response.content), Author.DATA),
        Span("<|end|>"),
    ]


GPT_OSS = AgentTemplate(
    "gpt_oss",
    ToolsForm(
        _namespace,
        replaces=(
            (
                "Channel must be included for every message.",
                "Channel must be included for every message.\n"
                "Calls to these tools must go to the commentary channel: 'functions'.",
            ),
            ("# Instructions\n\n# Tools", "# Tools"),
            ("} // namespace functions\n\n<|end|>", "} // namespace functions<|end|>"),
        ),
    ),
    _HarmonyCalls(),
    ResponseForm(write_one=_response, own_turn=("", "<|start|>assistant"), continues=True),
    stop_words=("<|call|>",),
    calls_end_turn=True,
    opening_before_calls="<|channel|>analysis<|message|>",
    control_tokens=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"),
)
