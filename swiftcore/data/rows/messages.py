"""Lists of messages in all their spellings, made standard.

A standard message is `{"role", "content"}`, with `loss` and `loss_scale` where the source has them.
Roles are system, user, assistant, tool_call, tool_response and tool (accepted as it is).
"""

import ast
import json
from collections.abc import Iterator

from swiftcore.data.quarantine import RejectedRow

Message = dict[str, object]

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "tool_call": "tool_call",
    "function_call": "tool_call",
    "tool_response": "tool_response",
    "function_response": "tool_response",
    "function": "tool_response",
    "observation": "tool_response",
    "observations": "tool_response",
    "tool": "tool",
}
_USER_KEYS = ("user", "human")
_ASSISTANT_KEYS = ("assistant", "gpt", "bot")
_JSON_ROLES = {"tool_call", "tool_response", "tool"}
# Literals longer than this are refused: ast.literal_eval takes time and memory without bound.
_MAX_LITERAL_CHARACTERS = 1_000_000


def standard_messages(
    value: object, system: object = None, column: str = "messages"
) -> list[Message]:
    """Return the standard form of a list of messages, turns or question-answer pairs.

    Args:
        value: list of messages, or its text as JSON or as a Python literal.
        system: system prompt of the row; one inside the messages wins.
        column: name of the column, for reasons.

    Raises:
        RejectedRow: the value is no conversation; the message says where and why.
    """
    items = parse_literal(value, column) if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise RejectedRow(f"{column} is {kind_of(items)}, expected a list of messages")
    if not items:
        raise RejectedRow(f"{column} is an empty list")
    messages: list[Message] = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise RejectedRow(f"{column}[{number}] is {kind_of(item)}, expected an object")
        messages.extend(_expand(item, f"{column}[{number}]"))
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": text_of(system, "system")})
    if not any(str(message["content"]).strip() for message in messages):
        raise RejectedRow(f"{column} has no text")
    return messages


def _expand(item: dict[str, object], where: str) -> Iterator[Message]:
    role_name = item.get("role", item.get("from"))
    if role_name is None:
        yield from _pair(item, where)
        return
    role = _ROLES.get(str(role_name).strip().lower().replace("-", "_"))
    if role is None:
        raise RejectedRow(f"{where}: unknown role {str(role_name)[:40]!r}")
    content = item.get("content", item.get("value"))
    calls = _called_tools(item, where)
    if calls and role != "assistant":
        raise RejectedRow(f"{where}: tool_calls on a {role} message, expected assistant")
    if content is None and not calls:
        raise RejectedRow(f"{where}: {role} message without content")
    flags = _loss_flags(item, where)
    if not calls or content not in (None, "", []):
        yield {"role": role, "content": _content(content, role, where), **flags}
    for call in calls:
        yield {"role": "tool_call", "content": call, **flags}


def _pair(item: dict[str, object], where: str) -> Iterator[Message]:
    question = next((item[key] for key in _USER_KEYS if key in item), None)
    answer = next((item[key] for key in _ASSISTANT_KEYS if key in item), None)
    if question is None and answer is None:
        keys = ", ".join(map(str, item))[:80] or "none"
        raise RejectedRow(f"{where} has no role: keys are {keys}")
    if question is not None:
        yield {"role": "user", "content": text_of(question, where)}
    if answer is not None:
        yield {"role": "assistant", "content": text_of(answer, where)}


def _loss_flags(item: dict[str, object], where: str) -> Message:
    flags: Message = {}
    loss, scale = item.get("loss"), item.get("loss_scale")
    if loss is not None:
        if loss not in (True, False):
            raise RejectedRow(f"{where}: loss is {kind_of(loss)}, expected true or false")
        flags["loss"] = bool(loss)
    if scale is not None:
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or scale < 0:
            raise RejectedRow(f"{where}: loss_scale is {kind_of(scale)}, expected a number >= 0")
        flags["loss_scale"] = scale
    return flags


def _content(value: object, role: str, where: str) -> str:
    if role in _JSON_ROLES and (isinstance(value, dict) or _is_list_of_data(value)):
        return json_text(value, where)
    text = text_of(value, where)
    if role == "tool_call" and text.lstrip()[:1] in ("{", "["):
        _check_json(text, where)
    return text


def _is_list_of_data(value: object) -> bool:
    return isinstance(value, list) and not any(
        isinstance(part, dict) and part.get("type") == "text" for part in value
    )


def _check_json(text: str, where: str) -> None:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as err:
        raise RejectedRow(f"{where}: tool_call is not valid JSON: {err}") from err


def _called_tools(item: dict[str, object], where: str) -> list[str]:
    """Return OpenAI `tool_calls` (or the older `function_call`) as tool_call texts."""
    calls = item.get("tool_calls")
    if not calls:
        legacy = item.get("function_call")
        calls = [legacy] if legacy else []
    if not isinstance(calls, list):
        raise RejectedRow(f"{where}: tool_calls is {kind_of(calls)}, expected a list")
    return [_called_tool(call, where) for call in calls]


def _called_tool(call: object, where: str) -> str:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RejectedRow(f"{where}: a tool call has no function name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as err:
            raise RejectedRow(
                f"{where}: arguments of {function['name']} are not valid JSON: {err}"
            ) from err
    call_object = {"name": function["name"], "arguments": {} if arguments is None else arguments}
    return json_text(call_object, where)


def text_of(value: object, where: str) -> str:
    """Return a text value: a string, a number's digits, or the joined text parts of a list.

    Raises:
        RejectedRow: the value is no text, or holds a NUL character.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list) and value:
        value = "".join(_part_text(part, where) for part in value)
    if not isinstance(value, str):
        raise RejectedRow(f"{where} is {kind_of(value)}, expected text")
    if "\0" in value:
        raise RejectedRow(f"{where} holds a NUL character")
    return value


def _part_text(part: object, where: str) -> str:
    if not isinstance(part, dict) or "type" not in part:
        raise RejectedRow(f"{where}: a content part is no object with a type")
    text = part.get("text", part.get("value"))
    if part["type"] != "text" or not isinstance(text, str):
        kind = str(part["type"])[:40]
        raise RejectedRow(f"{where}: content part of type {kind!r} is not supported")
    return text


def parse_literal(text: str, column: str) -> object:
    """Parse a structure that a table stored as text: JSON, or a Python literal.

    Raises:
        RejectedRow: it is neither.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass  # a Python literal comes next; what is neither is reported below
    try:
        if len(text) > _MAX_LITERAL_CHARACTERS:
            raise ValueError("too long for a Python literal")
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as err:
        raise RejectedRow(f"{column} is text that is neither JSON nor a Python literal") from err


def json_text(value: object, where: str) -> str:
    """Return a value as JSON text, keys in their order and other scripts unescaped.

    Raises:
        RejectedRow: the value has no JSON form, or is not valid Unicode.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise RejectedRow(f"{where} holds a lone surrogate, which is no valid Unicode") from err
    except (TypeError, ValueError, RecursionError) as err:
        raise RejectedRow(f"{where} has no JSON form: {err}") from err
    return text


def kind_of(value: object) -> str:
    """Name a value's type in JSON's words."""
    names: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "text"),
        ((list, tuple), "a list"),
        (dict, "an object"),
    ]
    if value is None:
        return "null"
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)
