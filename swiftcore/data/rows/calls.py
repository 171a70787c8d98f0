"""Tool calls in the spellings of OpenAI and Anthropic, as the text of `tool_call` messages."""

import json

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.rows.aside import Message
from swiftcore.data.rows.values import json_text, kind_of

Call = tuple[str, object]
"""The text of a call and its id, None where the source has none."""


def called_tools(item: dict[str, object], where: str) -> list[Call]:
    """Return the calls in OpenAI's `tool_calls`, or in the older `function_call`.

    Raises:
        RejectedRow: a call has no name, or arguments that are no object.
    """
    calls = item.get("tool_calls")
    if not calls:
        legacy = item.get("function_call")
        calls = [legacy] if legacy else []
    if not isinstance(calls, (list, tuple)):
        raise RejectedRow(f"{where}: tool_calls is {kind_of(calls)}, expected a list")
    return [call_of(call, where) for call in calls]


def call_of(call: object, where: str) -> Call:
    """Return one call: `{name, arguments}`, `{function: {...}}`, or Anthropic's `{name, input}`.

    Raises:
        RejectedRow: it has no name, or arguments that are no object.
    """
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RejectedRow(f"{where}: a tool call has no function name")
    name = function["name"]
    arguments = function.get("arguments", function.get("input"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as err:
            raise RejectedRow(f"{where}: arguments of {name} are not valid JSON: {err}") from err
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise RejectedRow(
            f"{where}: arguments of {name} are {kind_of(arguments)}, expected an object"
        )
    text = json_text({"name": name, "arguments": arguments}, where)
    return text, call.get("id") if isinstance(call, dict) else None


def check_json(text: str, where: str) -> None:
    """Refuse a tool_call that looks like JSON and is none.

    Raises:
        RejectedRow: it does not parse.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError) as err:
        raise RejectedRow(f"{where}: tool_call is not valid JSON: {err}") from err


def order_responses(messages: list[Message], ids: dict[int, object]) -> None:
    """Put the responses to parallel calls into the order of the calls.

    Standard messages have no ids: which response belongs to which call is told by their order.
    Responses whose ids don't all name a call of the answer before them stay as they are.

    Args:
        messages: standard messages, reordered in place.
        ids: call id of each message that has one, by position.
    """
    start = 0
    while start < len(messages):
        calls_end = _run_end(messages, start, ("assistant", "tool_call"))
        end = _run_end(messages, calls_end, ("tool", "tool_response"))
        order: dict[object, int] = {}
        for place in range(start, calls_end):
            if messages[place]["role"] == "tool_call" and isinstance(ids.get(place), str):
                order.setdefault(ids[place], place)
        answered = [ids.get(place) for place in range(calls_end, end)]
        known = [name for name in answered if isinstance(name, str) and name in order]
        if len(known) == len(answered) > 1 and len(set(known)) == len(known):
            places = sorted(range(calls_end, end), key=lambda place: order[ids[place]])
            messages[calls_end:end] = [messages[place] for place in places]
        start = max(end, start + 1)


def _run_end(messages: list[Message], start: int, roles: tuple[str, ...]) -> int:
    while start < len(messages) and messages[start]["role"] in roles:
        start += 1
    return start
