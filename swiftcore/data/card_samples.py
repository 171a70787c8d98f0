"""Sample rows of the data card, as people read them: turns with their roles in colour."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape

NUM_SAMPLES = 20

_MAX_TEXT = 1500
_MAX_TURNS = 30
_MAX_SUMMARY = 90
_ROLES = ("system", "user", "assistant", "tool_call", "tool_response", "tool")
_JSON_ROLES = ("tool_call", "tool_response", "tool")
_DIALOGUES = ("rejected_messages", "positive_messages", "negative_messages")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def sample_html(number: int, row: Mapping[str, object]) -> str:
    """Return one standard row as a block that opens and closes; only the first ones are open.

    Args:
        number: place among the samples, from 1.
        row: a standard row; long texts are cut, and the cut says by how much.
    """
    turns = list(_turns(row))
    opened = " open" if number <= 3 else ""
    return (
        f"<details{opened}><summary>{number}. {_text(_summary(row))} <span>"
        f"{_size(row)}</span></summary>{''.join(turns)}</details>"
    )


def _turns(row: Mapping[str, object]) -> Iterator[str]:
    if row.get("tools") is not None:
        yield _turn("column", "tools", _tool_names(row["tools"]))
    yield from _dialogue(row.get("messages"), "")
    rejected = row.get("rejected_response")
    if isinstance(rejected, str):
        yield _turn("rejected", "rejected answer", rejected)
    elif rejected is not None:
        yield from _dialogue(rejected, "rejected ")
    for column in _DIALOGUES:
        value = row.get(column)
        if isinstance(value, list):
            side = column.removesuffix("_messages") + " "
            for dialogue in value if value and isinstance(value[0], list) else [value]:
                yield from _dialogue(dialogue, side)
    shown = {"messages", "tools", "rejected_response", *_DIALOGUES}
    for column, value in row.items():
        if column not in shown:
            text = value if isinstance(value, str) else json.dumps(value, default=repr)
            yield _turn("column", column, text)


def _dialogue(value: object, side: str) -> Iterator[str]:
    messages = value if isinstance(value, list) else []
    for message in messages[:_MAX_TURNS]:
        role, text = str(message.get("role")), str(message.get("content"))
        tone = role if role in _ROLES else "column"
        if side == "rejected " and role == "assistant":
            tone = "rejected"
        flags = "".join(
            f", {name} {json.dumps(message[name])}"
            for name in ("loss", "loss_scale")
            if name in message
        )
        pretty = _indented(text) if role in _JSON_ROLES else text
        yield _turn(tone, f"{side}{role}{flags}", pretty)
    if len(messages) > _MAX_TURNS:
        yield f"<p>{len(messages) - _MAX_TURNS:,} more messages</p>"


def _turn(tone: str, name: str, text: str) -> str:
    more = len(text) - _MAX_TEXT
    cut = f" <em>{more:,} more characters</em>" if more > 0 else ""
    body = f'<pre dir="auto">{_text(text[:_MAX_TEXT])}</pre>' if text else "<em>empty</em>"
    return f'<div class="turn {tone}"><b>{_text(name)}</b>{body}{cut}</div>'


def _indented(text: str) -> str:
    if text[:1] not in ("{", "[") or len(text) > _MAX_TEXT:
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text


def _tool_names(tools: object) -> str:
    try:
        parsed = json.loads(tools) if isinstance(tools, str) else tools
    except (ValueError, RecursionError):
        return str(tools)
    names: list[str] = []
    for tool in parsed if isinstance(parsed, list) else [parsed]:
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        names.append(str(function.get("name")) if isinstance(function, dict) else "?")
    return ", ".join(names)


def _summary(row: Mapping[str, object]) -> str:
    messages = row.get("messages")
    texts = [
        str(message.get("content"))
        for message in (messages if isinstance(messages, list) else [])
        if message.get("role") != "system"
    ]
    line = " ".join((texts[0] if texts else "").split())
    return line[:_MAX_SUMMARY] + ("…" if len(line) > _MAX_SUMMARY else "")


def _size(row: Mapping[str, object]) -> str:
    messages = row.get("messages")
    items = messages if isinstance(messages, list) else []
    characters = sum(len(str(message.get("content"))) for message in items)
    word = "message" if len(items) == 1 else "messages"
    return f"{len(items)} {word}, {characters:,} characters"


def _text(value: str) -> str:
    """Escape text for HTML; characters that would not show are shown as their symbols."""
    visible = _CONTROL.sub(lambda match: chr(0x2400 + min(ord(match[0]), 0x21)), value)
    return escape(visible.encode("utf-8", "replace").decode("utf-8"))
