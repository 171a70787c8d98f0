"""A row's messages, checked and grouped into rounds of question and answer.

Repairs, all of them: a conversation that starts with the assistant gets an empty user turn;
assistant and tool_call messages in a row form one answer; tool responses in a row form one turn;
OpenAI `tool_calls` become tool_call messages. Everything else that does not alternate is an error.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from swiftcore.errors import DataError

Mode = Literal["train", "infer"]
# What writes such values out again takes several calls a level, and Python allows a thousand.
_MAX_DEPTH = 300
_ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool_call": "tool_call",
    "tool_response": "tool_response",
    "tool": "tool_response",
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: the tool's name and its arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """One assistant or tool_call message of an answer.

    Args:
        text: the model's words; empty for a call.
        call: the call, for a tool_call message.
        loss: the message's own flag, which beats the loss scale; None: the scale decides.
        loss_scale: factor on this message's weights.
        index: position of the message in the row.
    """

    text: str
    call: ToolCall | None
    loss: bool | None
    loss_scale: float | None
    index: int


@dataclass(frozen=True, slots=True)
class Round:
    """A question, from the user or from tools, and its answer (None: not answered yet)."""

    source: Literal["user", "tool"]
    queries: tuple[str, ...]
    answer: tuple[AnswerPart, ...] | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A whole row. `system` is None where the row brings none, and "" where it asks for none.

    `template_kwargs` is what the row sets for its template, such as `enable_thinking`.
    """

    system: str | None
    rounds: tuple[Round, ...]
    tools: tuple[dict[str, Any], ...]
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


def read_conversation(row: Mapping[str, Any]) -> Conversation:
    """Check a standard row and group its messages.

    Raises:
        DataError: the row is malformed; the error names message and field.
    """
    if not isinstance(row, Mapping):
        raise _bad("a row is no object", "row", type(row).__name__, "an object with messages")
    messages = row.get("messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise _bad("the row has no messages", "messages", messages, "a list of messages")
    system: str | None = None
    queries: list[Round] = []
    answers: list[list[AnswerPart]] = []
    previous = ""
    for index, message in enumerate(messages):
        role = _role(message, index)
        if role == "system":
            if index:
                raise _bad(
                    "a system message must come first",
                    f"messages[{index}].role",
                    "system after other messages",
                    "at most one system message, at the start",
                )
            system = _text(message, index)
            continue
        if role in ("assistant", "tool_call"):
            if not queries:
                queries.append(Round("user", ("",), None))
                answers.append([])
            answers[-1] += _answer_parts(message, role, index)
        elif role == "tool_response" and previous == "tool_response":
            last = queries[-1]
            queries[-1] = Round("tool", (*last.queries, _text(message, index)), None)
        else:
            _check_order(role, previous, index)
            source = "tool" if role == "tool_response" else "user"
            queries.append(Round(source, (_text(message, index),), None))
            answers.append([])
        previous = role
    if not queries:
        raise _bad("the row has only a system message", "messages", "system", "a user message")
    rounds = tuple(
        Round(query.source, query.queries, tuple(answer) or None)
        for query, answer in zip(queries, answers, strict=True)
    )
    kwargs = _template_kwargs(row.get("chat_template_kwargs"))
    return Conversation(system, rounds, tuple(read_tools(row.get("tools"))), kwargs)


def read_tools(tools: object) -> list[dict[str, Any]]:
    """Return the tool definitions, each as `{"type": "function", "function": {...}}`.

    Raises:
        DataError: not a list of objects with a name, nor a JSON string of one.
    """
    if tools is None or tools == "":
        return []
    if isinstance(tools, str):
        tools = _read_json(tools, "tools is not JSON", "tools", "a JSON list")
    elif isinstance(tools, list | tuple):
        _check_values(tools, "tools")
    if not isinstance(tools, list | tuple):
        raise _bad("tools is not a list", "tools", type(tools).__name__, "a list of functions")
    return [_tool(tool, index) for index, tool in enumerate(tools)]


def _template_kwargs(given: object) -> dict[str, Any]:
    if given is None or given == "":
        return {}
    if isinstance(given, str):
        where = "chat_template_kwargs"
        given = _read_json(given, "chat_template_kwargs is not JSON", where, "a JSON object")
    if not isinstance(given, Mapping):
        raise _bad(
            "chat_template_kwargs is no object",
            "chat_template_kwargs",
            type(given).__name__,
            "an object",
        )
    # A column of objects has every key in every row; null is "not said".
    return {str(name): value for name, value in given.items() if value is not None}


def _tool(tool: object, index: int) -> dict[str, Any]:
    if isinstance(tool, str):
        tool = _read_json(tool, "a tool is not JSON", f"tools[{index}]", "a JSON object")
    if not isinstance(tool, Mapping):
        raise _bad("a tool is no object", f"tools[{index}]", type(tool).__name__, "an object")
    wrapped = tool if "function" in tool else {"type": "function", "function": tool}
    function = wrapped["function"]
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _bad(
            "a tool has no name", f"tools[{index}].function.name", tool, "a function with a name"
        )
    _check_schema(function.get("parameters"), f"tools[{index}].function.parameters")
    return dict(wrapped)


def _check_schema(parameters: object, where: str) -> None:
    """Refuse parameters that are no JSON schema of an object, as far as templates read them."""
    if parameters is None:
        return
    if not isinstance(parameters, Mapping):
        raise _bad("parameters of a tool are no JSON schema", where, parameters, "an object")
    properties = parameters.get("properties")
    if properties is not None and not isinstance(properties, Mapping):
        raise _bad(
            "parameters of a tool are no JSON schema",
            f"{where}.properties",
            properties,
            "an object with one schema a parameter",
        )
    for name, schema in (properties or {}).items():
        # JSON Schema allows true and false for any and no value.
        if not isinstance(schema, Mapping | bool):
            raise _bad(
                "parameters of a tool are no JSON schema",
                f"{where}.properties.{name}",
                schema,
                "a schema, which is an object",
            )


def read_call(content: object, where: str, *, is_json: bool = False) -> list[ToolCall]:
    """Read the content of a tool_call message: a JSON object, or a list of them.

    Args:
        content: the call or calls.
        where: names it in errors.
        is_json: its values are known to be JSON.

    Raises:
        DataError: not JSON, no name, or arguments that are no JSON object.
    """
    if isinstance(content, str):
        expected = '{"name": ..., "arguments": {...}}'
        content = _read_json(content, "a tool_call is not JSON", where, expected)
        is_json = True
    if isinstance(content, list) and not any(isinstance(item, list) for item in content):
        return [call for item in content for call in read_call(item, where, is_json=is_json)]
    if isinstance(content, Mapping) and isinstance(content.get("function"), Mapping):
        content = content["function"]
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        raise _bad("a tool_call has no name", where, content, '{"name": ..., "arguments": {...}}')
    arguments = content.get("arguments", {})
    if isinstance(arguments, str):
        message = "the arguments of a tool_call are not JSON"
        arguments = _read_json(arguments or "{}", message, where, "a JSON object")
    elif not is_json:
        _check_values(arguments, where)
    if not isinstance(arguments, Mapping):
        raise _bad(
            "the arguments of a tool_call are no JSON object", where, arguments, "a JSON object"
        )
    return [ToolCall(content["name"], dict(arguments))]


def _role(message: object, index: int) -> str:
    if not isinstance(message, Mapping):
        raise _bad(
            "a message is no object", f"messages[{index}]", type(message).__name__, "role, content"
        )
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _bad("unknown role", f"messages[{index}].role", role, " | ".join(_ROLES))
    return _ROLES[role]


def _check_order(role: str, previous: str, index: int) -> None:
    if role == "user" and previous == "user":
        raise _bad(
            "two user messages in a row",
            f"messages[{index}].role",
            "user after user",
            "user and assistant in turn",
        )
    if role == "tool_response" and previous not in ("assistant", "tool_call"):
        raise _bad(
            "a tool response without a call",
            f"messages[{index}].role",
            f"tool_response after {previous or 'nothing'}",
            "a tool_call before it",
        )


def _text(message: Mapping[str, Any], index: int) -> str:
    content = message.get("content")
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise _bad(
            "a message has no text content",
            f"messages[{index}].content",
            content,
            "a string",
        )
    _check_text(content, f"messages[{index}].content")
    return content


def _answer_parts(message: Mapping[str, Any], role: str, index: int) -> list[AnswerPart]:
    loss = message.get("loss")
    if loss is not None and not isinstance(loss, bool):
        raise _bad("a loss flag is not true or false", f"messages[{index}].loss", loss, "a boolean")
    scale = message.get("loss_scale")
    if scale is not None and (
        isinstance(scale, bool)
        or not isinstance(scale, int | float)
        or not math.isfinite(scale)
        or scale < 0
    ):
        raise _bad("a message weight is no number", f"messages[{index}].loss_scale", scale, ">= 0")

    def part(text: str, call: ToolCall | None) -> AnswerPart:
        return AnswerPart(text, call, loss, None if scale is None else float(scale), index)

    where = f"messages[{index}].content"
    if role == "tool_call":
        return [part("", call) for call in read_call(message.get("content"), where)]
    calls = message.get("tool_calls")
    if not calls:
        return [part(_text(message, index), None)]
    text = "" if message.get("content") is None else _text(message, index)
    found = [part("", call) for call in read_call(calls, f"messages[{index}].tool_calls")]
    return [part(text, None), *found] if text else found


def _read_json(text: str, message: str, where: str, expected: str) -> Any:
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError) as err:
        raise _bad(message, where, f"{err}: {text[:80]!r}", expected) from err
    _check_depth(value, text, where)
    # Only an escape can bring in what the text itself does not hold.
    _check_text(text, where)
    if "\\ud" in text or "\\uD" in text:
        _check_text(json.dumps(value, ensure_ascii=False), where)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


# One decoder for all rows: json.loads builds one for each call that says anything of constants.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _check_values(value: object, where: str) -> None:
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as err:
        raise _bad("a value is no JSON", where, err, "objects, lists, texts, numbers") from err
    _check_depth(value, written, where)
    _check_text(written, where)


def _check_depth(value: object, written: str, where: str) -> None:
    if written.count("{") + written.count("[") <= _MAX_DEPTH:
        return
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for each in level
            if isinstance(each, dict | list | tuple)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise _bad("a value is nested too deeply", where, written, f"at most {_MAX_DEPTH} levels")


def _check_text(text: str, where: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as err:
        start = err.start
        raise DataError(
            "a text holds characters that are no valid Unicode",
            where=where,
            found=f"U+{ord(text[start]):04X} at character {start}, a lone surrogate",
            expected="text without lone surrogates",
            do="decode the source with errors='replace', or drop the row",
        ) from err


def _bad(message: str, where: str, found: object, expected: str) -> DataError:
    shown = found if isinstance(found, str) else repr(found)
    return DataError(
        message,
        where=where,
        found=shown[:200],
        expected=expected,
        do="mend the row, or let ingest put it into quarantine",
    )
