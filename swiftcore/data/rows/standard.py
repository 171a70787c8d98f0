"""The columns of a standard row beside its messages: checked, and brought to one form."""

import json
from collections.abc import Callable

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.rows.messages import (
    json_text,
    kind_of,
    parse_literal,
    standard_messages,
    text_of,
)

Row = dict[str, object]


def finish_row(row: Row, system: object = None) -> None:
    """Bring tools, preference, media and grounding columns of a row with messages to one form.

    Args:
        row: a row whose `messages` are standard; changed in place.
        system: system prompt of the row, for a rejected dialogue that brings none.

    Raises:
        RejectedRow: one of them has no meaning.
    """
    if "rejected_response" in row:
        row["rejected_response"] = _rejected_response(row)
    if row.get("rejected_messages") is not None:
        dialogue = standard_messages(row["rejected_messages"], system, "rejected_messages")
        row["rejected_messages"] = dialogue
    for side in ("positive", "negative"):
        name = f"{side}_messages"
        if row.get(name) is not None:
            row[name] = _list_of_dialogues(row[name], name)
    for column, value in row.items():
        convert = _CONVERTERS.get(column)
        if convert is not None and value is not None:
            row[column] = convert(value, column)


def _rejected_response(row: Row) -> object:
    rejected, messages = row["rejected_response"], row["messages"]
    if rejected is None:
        raise RejectedRow("rejected_response is null")
    if not isinstance(messages, list):
        raise RejectedRow("rejected_response without messages")
    if isinstance(rejected, list):
        rejected = standard_messages(rejected, column="rejected_response")
        same = rejected == messages[-len(rejected) :]
    else:
        rejected = text_of(rejected, "rejected_response")
        same = rejected == messages[-1]["content"]
    if same:
        raise RejectedRow("rejected_response equals the answer")
    return rejected


def _list_of_dialogues(value: object, column: str) -> list[object]:
    dialogues = parse_literal(value, column) if isinstance(value, str) else value
    if not isinstance(dialogues, list) or not dialogues:
        raise RejectedRow(f"{column} is {kind_of(dialogues)}, expected a list of dialogues")
    if isinstance(dialogues[0], dict):
        dialogues = [dialogues]
    return [standard_messages(dialogue, column=column) for dialogue in dialogues]


def _tools(value: object, column: str) -> str | None:
    """Return tools as JSON text with the key order of the source; None when there are none."""
    text = value if isinstance(value, str) else None
    if text is not None:
        if not text.strip():
            return None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as err:
            raise RejectedRow(f"{column} is not valid JSON: {err}") from err
    if isinstance(value, dict):
        value, text = [value], None
    if not isinstance(value, list):
        raise RejectedRow(f"{column} is {kind_of(value)}, expected a list of tools")
    if any(isinstance(tool, str) for tool in value):
        value, text = [_tool_of(tool, column) for tool in value], None
    if not all(isinstance(tool, dict) for tool in value):
        raise RejectedRow(f"{column} holds something that is no object")
    if not value:
        return None
    return text if text is not None else json_text(value, column)


def _tool_of(tool: object, column: str) -> object:
    return parse_literal(tool, column) if isinstance(tool, str) else tool


def _images(value: object, column: str) -> list[object]:
    items = value if isinstance(value, list) else [value]
    return [_image(item, column) for item in items]


def _image(value: object, column: str) -> Row:
    if isinstance(value, str):
        return {"bytes": None, "path": value}
    if isinstance(value, dict) and (value.get("path") or value.get("bytes")):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    raise RejectedRow(f"{column} holds {kind_of(value)}, expected a path or bytes")


def _media(value: object, column: str) -> list[object]:
    return value if isinstance(value, list) else [value]


def _objects(value: object, column: str) -> Row:
    """Return grounding boxes with corners ordered, so that x1 <= x2 and y1 <= y2."""
    found = parse_literal(value, column) if isinstance(value, str) else value
    if not isinstance(found, dict) or not isinstance(found.get("bbox"), list):
        raise RejectedRow(f"{column} has no list bbox")
    ordered: Row = {k: found[k] for k in ("ref", "bbox", "bbox_type", "image_id") if k in found}
    ordered["bbox"] = [_box(box, column) for box in found["bbox"]]
    return ordered


def _box(box: object, column: str) -> list[object]:
    if not isinstance(box, list) or len(box) not in (2, 4):
        length = len(box) if isinstance(box, list) else kind_of(box)
        raise RejectedRow(f"{column}.bbox has a box of length {length}, expected 2 or 4 numbers")
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in box):
        raise RejectedRow(f"{column}.bbox has a box with something that is no number")
    if len(box) == 2:
        return list(box)
    x1, y1, x2, y2 = box
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]


_CONVERTERS: dict[str, Callable[[object, str], object]] = {
    side + column: convert
    for side in ("", "rejected_", "positive_", "negative_")
    for column, convert in (
        ("tools", _tools),
        ("images", _images),
        ("videos", _media),
        ("audios", _media),
        ("objects", _objects),
    )
}
