"""GLM: a name and JSON lines (GLM-4), or tags for keys and values (GLM-4.5 and later).

The model's stop token after calls is `<|observation|>`. Unlike ms-swift, arguments of GLM-4 are
JSON (there: a Python dict's repr), words before a call keep a role header between them, and the
user's system prompt is kept, in a system turn after that of the tools.

Sources: the published chat templates of GLM-4-9B, GLM-4-0414, GLM-4.5 and GLM-4.7.
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
from swiftcore.template.agents.hermes import SIGNATURES, listed
from swiftcore.template.agents.json_calls import (
    CallReader,
    decode_at,
    dump_json,
    read_json_call,
)
from swiftcore.template.agents.tagged import TaggedCalls
from swiftcore.template.conversation import ToolCall
from swiftcore.template.spans import Author, Span

_OBSERVATION = "<|observation|>"
_ASSISTANT = "<|assistant|>"
_STOPS = (_OBSERVATION,)


class _LineCalls:
    """A line with the name, then the arguments; a role header stands between calls."""

    _head = re.compile(r"(?:\A|\n|<\|assistant\|>)\s*(?P<name>[\w.:/-]{1,128})[ \t]*\n(?=\s*\{)")
    _end = re.compile(r"\s*(?=<\|assistant\|>|<\|observation\|>|\Z)")

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        """Write one call."""
        return [
            Span(place.gap(_ASSISTANT) if place.is_first else _ASSISTANT),
            Span(f"{call.name}\n{dump_json(call.arguments)}", Author.ASSISTANT),
            Span(_OBSERVATION if place.is_last else ""),
        ]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        """Read lines that are a name, followed by a JSON object up to the end of a turn."""
        reader = CallReader(text)
        position = 0
        while (found := self._head.search(text, position)) is not None:
            position = found.end()
            if schemas and found["name"] not in schemas:
                continue
            decoded = decode_at(text, found.end())
            if decoded is None:
                reader.add(f"arguments of {found['name']!r} are not JSON")
                continue
            arguments, end = decoded
            ended = self._end.match(text, end)
            if ended is None:
                continue
            reader.add(read_json_call({"name": found["name"], "arguments": arguments}))
            reader.skip(found.start(), ended.end())
            position = ended.end()
        return reader.result(_ASSISTANT, _OBSERVATION)


def _described(tools: Sequence[Tool]) -> list[Span]:
    spans = [Span("# 可用工具\n\n")]
    for index, tool in enumerate(tools):
        function = tool["function"]
        body = json.dumps(function, ensure_ascii=False, indent=4)
        spans += [
            Span("\n## " if index else "## "),
            Span(f"{function['name']}\n\n{body}", Author.DATA),
            Span("\n在调用上述函数时，请使用 Json 格式表示调用的参数。"),
        ]
    return spans


def _introduced(tools: Sequence[Tool]) -> list[Span]:
    introduction = (
        "你是一个名为 GLM-4 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
        "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n"
    )
    return [Span(introduction), *_described(tools)]


# The first `<|observation|>` is the model's own: it ended the calls.
_LINE_RESPONSES = ResponseForm(
    each=("\n", ""), gap=_OBSERVATION, own_turn=("", _ASSISTANT), continues=True
)


GLM4 = AgentTemplate(
    "glm4",
    ToolsForm(_described, place="before", glue="<|system|>\n"),
    _LineCalls(),
    _LINE_RESPONSES,
    stop_words=_STOPS,
    calls_end_turn=True,
    control_tokens=(_OBSERVATION, _ASSISTANT),
)
CHATGLM4 = AgentTemplate(
    "chatglm4",
    ToolsForm(_introduced, place="before", glue="<|system|>\n"),
    _LineCalls(),
    _LINE_RESPONSES,
    stop_words=_STOPS,
    calls_end_turn=True,
    control_tokens=(_OBSERVATION, _ASSISTANT),
)

_FORMAT = (
    "\n</tools>\n\nFor each function call, output the function name and arguments within the "
    "following XML format:\n<tool_call>{function-name}"
)


def _tagged(
    name: str, *, line: str, header: str, before: str = "", unwrapped: bool = False
) -> AgentTemplate:
    """Return a template of keys and values in tags.

    Args:
        name: of the template.
        line: what stands between tags: a newline, or nothing.
        header: of the user's own system prompt, behind the tools.
        before: text before the tools.
        unwrapped: tools are shown without the `{"type": "function", ...}` around them.
    """
    example = "".join(
        f"<arg_key>{{arg-key-{n}}}</arg_key>{line}<arg_value>{{arg-value-{n}}}</arg_value>{line}"
        for n in (1, 2)
    )
    return AgentTemplate(
        name,
        ToolsForm(
            listed(
                before + SIGNATURES,
                f"{_FORMAT}{line}{example}...{line}</tool_call>",
                unwrapped=unwrapped,
            ),
            place="before",
            glue=header,
        ),
        _ObservedCalls(
            call=("<tool_call>", line, "</tool_call>"),
            argument=("<arg_key>", f"</arg_key>{line}<arg_value>", f"</arg_value>{line}"),
            gap=line,
            text_gap=line,
        ),
        ResponseForm(
            each=(f"{line}<tool_response>{line}", f"{line}</tool_response>"),
            own_turn=("", _ASSISTANT),
            continues=True,
        ),
        stop_words=_STOPS,
        calls_end_turn=True,
        control_tokens=(_OBSERVATION, _ASSISTANT),
    )


class _ObservedCalls(TaggedCalls):
    """Tagged calls that end with the token that asks for the observation."""

    def write(self, call: ToolCall, place: CallPlace) -> list[Span]:
        end = [Span(_OBSERVATION)] if place.is_last else []
        return [*super().write(call, place), *end]

    def parse(self, text: str, schemas: Schemas) -> ParsedText:
        parsed = super().parse(text, schemas)
        rest = parsed.text.removesuffix(_OBSERVATION).rstrip()
        return ParsedText(parsed.calls, rest, parsed.problems)


GLM4_5 = _tagged("glm4_5", line="\n", header="<|system|>\n")
GLM4_7 = _tagged("glm4_7", line="", header="<|system|>", before="\n")
GLM5_1 = _tagged("glm5_1", line="", header="<|system|>", before="\n", unwrapped=True)
