"""Llama 3 and 4: tools as JSON before the first question, calls as bare JSON objects.

The recorded form is ms-swift's: responses in a turn of the role `tool`. Meta's own template of
Llama 3.1 calls that role `ipython` and says so in the system turn; template `jinja` writes that.

Sources: recorded encodings (llama3); the published chat template of Llama 4.
"""

import json
import re
from collections.abc import Sequence

from swiftcore.template.agents.base import (
    AgentTemplate,
    CallPlace,
    ParsedText,
    ResponseForm,
    Schemas,
    Tool,
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

_MAX_FAILURES = 20


class _BareCalls:
    """JSON objects with `name` and `parameters`, each on a line."""

    _start = re.compile(r'\{\s*"(?:name|parameters|arguments|type)"\s*:')

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call."""
        body = dump_json({"name": call.name, "parameters": call.arguments})
        return [Span("" if place.is_first else "\n"), Span(body, Author.ASSISTANT)]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read objects that have a name and parameters; other JSON is text."""
        reader = CallReader(text)
        position = failures = 0
        while (found := self._start.search(text, position)) is not None:
            decoded = decode_at(text, found.start())
            if decoded is None:
                reader.add(f"a call is not JSON: {text[found.start() :].strip()[:120]!r}")
                failures += 1
                position = found.end()
                if failures == _MAX_FAILURES:
                    break
                continue
            value, position = decoded
            if not isinstance(value, dict) or not {"parameters", "arguments"} & value.keys():
                continue
            reader.add(read_json_call(value))
            reader.skip(found.start(), position)
        return reader.result("<|python_tag|>", "<|eom_id|>", "<|eom|>")


def _shown(tools: Sequence[Tool]) -> list[Span]:
    body = "\n\n".join(json.dumps(tool, ensure_ascii=False, indent=4) for tool in tools)
    return [
        Span(
            "Given the following functions, please respond with a JSON for a function call with "
            "its proper arguments that best answers the given prompt.\n\n"
            'Respond in the format {"name": function name, "parameters": dictionary of argument '
            "name and its value}. Do not use variables.\n\n"
        ),
        Span(body, Author.DATA),
    ]


def _llama(
    name: str, header: tuple[str, str], end: str, *, tool_role: str, stop_words: tuple[str, ...]
) -> AgentTemplate:
    start, close = header
    return AgentTemplate(
        name,
        ToolsForm(_shown, place="question"),
        _BareCalls(),
        ResponseForm(
            each=(f"{start}{tool_role}{close}\n\n", end),
            own_turn=("", f"{start}assistant{close}\n\n"),
        ),
        stop_words=stop_words,
        control_tokens=(start, close, end),
    )


LLAMA3 = _llama(
    "llama3",
    ("<|start_header_id|>", "<|end_header_id|>"),
    "<|eot_id|>",
    tool_role="tool",
    stop_words=("<|eom_id|>",),
)
LLAMA4 = _llama(
    "llama4",
    ("<|header_start|>", "<|header_end|>"),
    "<|eot|>",
    tool_role="ipython",
    stop_words=("<|eom|>",),
)
