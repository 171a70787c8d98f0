"""Lists of messages in all their spellings, made standard.

A standard message is `{"role", "content"}`, with `loss` and `loss_scale` where the source has them.
Roles are system, user, assistant, tool_call, tool_response and tool (accepted as it is). Other keys
of a message are read where text can hold them (reasoning, weights, calls, ids of calls); what is
left out is said in the notes.
"""

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.rows.aside import Aside, Message
from swiftcore.data.rows.calls import Call, called_tools, check_json, order_responses
from swiftcore.data.rows.parts import Piece, are_parts, read_parts, thought_text
from swiftcore.data.rows.values import is_clean, json_text, kind_of, parse_literal, text_of

_ROLES = {
    "system": "system",
    "developer": "system",
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
# Roles whose text needs no look inside.
_PLAIN_ROLES = {name: role for name, role in _ROLES.items() if role != "tool_call"}
_USER_KEYS = ("user", "human")
_ASSISTANT_KEYS = ("assistant", "gpt", "bot")
_JSON_ROLES = ("tool_call", "tool_response", "tool")
_REASONING_KEYS = ("reasoning_content", "reasoning")
_WEIGHT_KEYS = ("loss_weight", "weight")
_ID_KEYS = ("tool_call_id", "tool_use_id")
_READ_KEYS = frozenset(
    {
        *("role", "from", "content", "value", "refusal", "loss", "loss_scale"),
        *("tool_calls", "function_call", *_REASONING_KEYS, *_WEIGHT_KEYS, *_ID_KEYS),
    }
)
_MAX_WEIGHT = 1e9


def standard_messages(
    value: object, system: object = None, column: str = "messages", aside: Aside | None = None
) -> list[Message]:
    """Return the standard form of a list of messages, turns or question-answer pairs.

    Args:
        value: list of messages, or its text as JSON or as a Python literal.
        system: system prompt of the row; one inside the messages wins.
        column: name of the column, for reasons.
        aside: takes the media and notes that reading turns up.

    Raises:
        RejectedRow: the value is no conversation; the message says where and why.
    """
    aside = aside or Aside()
    messages = _read_items(_items(value, column), column, aside)
    if system is not None:
        if messages[0]["role"] == "system":
            aside.notes.add("the system column is left out: the messages bring their own")
        else:
            messages.insert(0, {"role": "system", "content": system_text(system, aside)})
    return messages


def system_text(system: object, aside: Aside) -> str:
    """Return a row's system prompt, also one in content parts.

    Raises:
        RejectedRow: it is no text.
    """
    if isinstance(system, (list, tuple)) and are_parts(system):
        return "".join(piece.text for piece in read_parts(system, "system", aside))
    return text_of(system, "system")


def message_of(role: str, value: object, where: str, aside: Aside) -> list[Message]:
    """Return what one column says in the words of one role: a message, or several for parts.

    Raises:
        RejectedRow: the value is no text and no list of content parts.
    """
    if type(value) is str and is_clean(value):
        return [{"role": role, "content": value}]
    return [message for message, _ in _expand({"role": role, "content": value}, where, aside)]


def is_dialogue(value: object) -> bool:
    """Tell a list of messages from a list of anything else."""
    return isinstance(value, (list, tuple)) and any(
        isinstance(item, dict) and ("role" in item or "from" in item) for item in value
    )


def _items(value: object, column: str) -> list[object] | tuple[object, ...]:
    items = parse_literal(value, column) if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise RejectedRow(f"{column} is {kind_of(items)}, expected a list of messages")
    first = items[0] if len(items) else None
    if isinstance(first, (list, tuple)):
        if len(items) > 1:
            raise RejectedRow(f"{column} holds {len(items)} dialogues, expected one")
        items = first
    if not items:
        raise RejectedRow(f"{column} is an empty list")
    return items


def _read_items(
    items: list[object] | tuple[object, ...], column: str, aside: Aside
) -> list[Message]:
    messages: list[Message] = []
    ids: dict[int, object] = {}
    has_text = False
    for number, item in enumerate(items, start=1):
        # The common message has a role and clean text and nothing else: no closer look needed.
        if type(item) is dict and len(item) == 2:
            name, text = item.get("role"), item.get("content")
            if name is None:
                name, text = item.get("from"), item.get("value")
            if (
                type(text) is str
                and type(name) is str
                and name in _PLAIN_ROLES
                and "\0" not in text
                and (text.isascii() or is_clean(text))
            ):
                messages.append({"role": _PLAIN_ROLES[name], "content": text})
                has_text = has_text or not (text == "" or text.isspace())
                continue
        for message, call_id in _expand(item, f"{column}[{number}]", aside):
            if call_id is not None:
                ids[len(messages)] = call_id
            messages.append(message)
            has_text = has_text or str(message["content"]).strip() != ""
    if not has_text:
        raise RejectedRow(f"{column} has no text")
    if ids:
        order_responses(messages, ids)
    return messages


def _expand(item: object, where: str, aside: Aside) -> list[tuple[Message, object]]:
    """Return the standard messages that one message stands for, each with its call id or None."""
    if not isinstance(item, dict):
        raise RejectedRow(f"{where} is {kind_of(item)}, expected an object")
    name = item.get("role")
    name = item.get("from") if name is None else name
    if name is None:
        return [(message, None) for message in _pair(item, where, aside)]
    role = _ROLES.get(name.strip().lower().replace("-", "_")) if isinstance(name, str) else None
    if role is None:
        shown = repr(name[:40]) if isinstance(name, str) else kind_of(name)
        raise RejectedRow(f"{where}: unknown role {shown}")
    _note_unread(item, aside)
    calls = called_tools(item, where)
    if calls and role != "assistant":
        raise RejectedRow(f"{where}: tool_calls on a {role} message, expected assistant")
    pieces = _pieces(item, role, where, calls, aside)
    flags = _loss_flags(item, role, where, aside)
    own_id = next((item[key] for key in _ID_KEYS if item.get(key) is not None), None)
    return [_message(piece, role, own_id, flags, where) for piece in pieces]


def _pieces(
    item: dict[str, object], role: str, where: str, calls: list[Call], aside: Aside
) -> list[Piece]:
    content = next(
        (item[key] for key in ("content", "value", "refusal") if item.get(key) is not None), None
    )
    if content is None:
        pieces: list[Piece] = []
    elif role in _JSON_ROLES and isinstance(content, (dict, list, tuple)):
        pieces = [_result_piece(content, role, where, aside)]
    elif isinstance(content, (list, tuple)) and content:
        pieces = read_parts(content, where, aside)
    else:
        pieces = [Piece("text", text_of(content, where) if content != [] or not calls else "")]
    thought = _thought(item, role, where, pieces, aside)
    if thought:
        first = pieces.pop(0).text if pieces and pieces[0].kind == "text" else ""
        pieces.insert(0, Piece("text", thought + first.lstrip("\n")))
    pieces += [Piece("call", text, call_id) for text, call_id in calls]
    if not pieces:
        raise RejectedRow(f"{where}: {role} message without content")
    if len(pieces) > 1:
        pieces = [piece for piece in pieces if piece.kind != "text" or piece.text != ""]
    return pieces


def _result_piece(content: object, role: str, where: str, aside: Aside) -> Piece:
    """A tool's result, or a call, that the source holds as data instead of text."""
    if role != "tool_call" and isinstance(content, (list, tuple)) and are_parts(content):
        return Piece("text", "".join(p.text for p in read_parts(content, where, aside)))
    return Piece("text", json_text(content, where))


def _thought(
    item: dict[str, object], role: str, where: str, pieces: list[Piece], aside: Aside
) -> str:
    key = next((key for key in _REASONING_KEYS if item.get(key)), None)
    if key is None:
        return ""
    brings_own = bool(pieces) and pieces[0].text.lstrip().startswith("<think>")
    if role != "assistant" or brings_own or not isinstance(item[key], str):
        aside.leave_out(key)
        return ""
    return thought_text(item[key], f"{where}: {key}")


def _message(
    piece: Piece, role: str, own_id: object, flags: Message, where: str
) -> tuple[Message, object]:
    if piece.kind == "call":
        if role not in ("assistant", "tool_call"):
            raise RejectedRow(f"{where}: a tool call in a {role} message, expected assistant")
        return {"role": "tool_call", "content": piece.text, **flags}, piece.id
    if piece.kind == "result":
        if role not in ("user", "tool", "tool_response"):
            raise RejectedRow(f"{where}: a tool result in a {role} message, expected user")
        return {"role": "tool_response", "content": piece.text}, piece.id
    if role == "tool_call" and piece.text.lstrip()[:1] in ("{", "["):
        check_json(piece.text, where)
    return {"role": role, "content": piece.text, **flags}, own_id


def _note_unread(item: dict[str, object], aside: Aside) -> None:
    for key, value in item.items():
        if value is not None and key not in _READ_KEYS:
            aside.leave_out(key)


def _pair(item: dict[str, object], where: str, aside: Aside) -> list[Message]:
    question = next((item[key] for key in _USER_KEYS if item.get(key) is not None), None)
    answer = next((item[key] for key in _ASSISTANT_KEYS if item.get(key) is not None), None)
    if question is None and answer is None:
        keys = ", ".join(key[:40] for key in item if isinstance(key, str))[:80] or "none"
        raise RejectedRow(f"{where} has no role: keys are {keys}")
    for key, value in item.items():
        if value is not None and key not in (*_USER_KEYS, *_ASSISTANT_KEYS):
            aside.leave_out(key)
    messages = [] if question is None else message_of("user", question, where, aside)
    return messages if answer is None else messages + message_of("assistant", answer, where, aside)


def _loss_flags(item: dict[str, object], role: str, where: str, aside: Aside) -> Message:
    loss, scale = item.get("loss"), item.get("loss_scale")
    if loss is None and scale is None:
        return _flags_of_weight(item, role, where, aside)
    flags: Message = {}
    if loss is not None:
        if not isinstance(loss, (bool, int, float)) or loss not in (True, False):
            raise RejectedRow(f"{where}: loss is {kind_of(loss)}, expected true or false")
        flags["loss"] = bool(loss)
    if scale is not None:
        flags["loss_scale"] = _weight(scale, f"{where}: loss_scale")
    return flags


def _flags_of_weight(item: dict[str, object], role: str, where: str, aside: Aside) -> Message:
    """Read LLaMA-Factory's `loss_weight` and OpenAI's `weight`: 0 is no loss, 1 the usual one."""
    key = next((key for key in _WEIGHT_KEYS if item.get(key) is not None), None)
    if key is None:
        return {}
    is_answer = role in ("assistant", "tool_call")
    if key == "weight" and not is_answer:
        aside.leave_out(key)
        return {}
    weight = _weight(item[key], f"{where}: {key}")
    if not is_answer:
        if weight:
            raise RejectedRow(f"{where}: {key} on a {role} message; only answers are trained on")
        return {}
    if weight == 0:
        return {"loss": False}
    return {} if weight == 1 else {"loss_scale": weight}


def _weight(value: object, where: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RejectedRow(f"{where} is {kind_of(value)}, expected a number >= 0")
    if not 0 <= value <= _MAX_WEIGHT:
        raise RejectedRow(f"{where} is out of range, expected a number from 0 to {_MAX_WEIGHT:g}")
    return value
