"""The columns of a standard row beside its messages: checked, and brought to one form."""

import json
from collections.abc import Callable

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.rows.aside import Aside, Message, Row
from swiftcore.data.rows.media import clips_of, images_of, objects_of
from swiftcore.data.rows.messages import standard_messages
from swiftcore.data.rows.values import (
    json_text,
    kind_of,
    number_of,
    parse_literal,
    scalar_of,
    text_of,
)

Converter = Callable[[object, str], object]

_PAIRED = ("messages", "images", "videos", "audios", "tools", "objects")
_SIDES = ("rejected", "positive", "negative")
STANDARD_COLUMNS = (
    *_PAIRED,
    *(f"{side}_{name}" for side in _SIDES for name in _PAIRED),
    "rejected_response",
    "label",
    "channel",
    "margin",
    "chat_template_kwargs",
)
# Columns that can only be read together with the messages.
SIDE_COLUMNS = ("rejected_response", *(f"{side}_messages" for side in _SIDES))


def read_side_columns(given: Row, row: Row, system: object, aside: Aside) -> None:
    """Bring the rejected answer or dialogue and the samples of a row to one form.

    Args:
        given: the values of those of `SIDE_COLUMNS` that the source has.
        row: a row whose `messages` are standard; takes the result.
        system: system prompt of the row, for a rejected dialogue that brings none.
        aside: takes notes.

    Raises:
        RejectedRow: one of them has no meaning.
    """
    messages = row["messages"]
    if "rejected_response" in given and isinstance(messages, list):
        row["rejected_response"] = rejected_response(given["rejected_response"], messages)
    if given.get("rejected_messages") is not None:
        row["rejected_messages"] = rejected_dialogue(
            given["rejected_messages"], row, system, "rejected_messages", aside
        )
    for side in ("positive", "negative"):
        name = f"{side}_messages"
        if given.get(name) is not None:
            row[name] = _list_of_dialogues(given[name], name, row, side)


def rejected_response(value: object, messages: list[Message]) -> object:
    """Return the rejected answer: its text, or the messages that replace the answer.

    Raises:
        RejectedRow: it is null, equals the answer, or is no answer.
    """
    column = "rejected_response"
    if value is None:
        raise RejectedRow(f"{column} is null")
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, str) for item in value):
            raise RejectedRow(
                f"{column} is a list of texts; columns {{'response': 'positive', "
                f"'{column}': 'negative'}} reads such a row for embedding"
            )
        aside = Aside()
        rejected: object = (answer := standard_messages(value, column=column, aside=aside))
        if any(message["role"] in ("user", "system") for message in answer):
            raise RejectedRow(f"{column} holds a question; give rejected_messages instead")
        if aside.media:
            raise RejectedRow(f"{column} brings media; give rejected_messages instead")
        same = answer == messages[-len(answer) :]
    else:
        rejected = text_of(value, column)
        same = rejected == messages[-1]["content"]
    if same:
        raise RejectedRow(f"{column} equals the answer")
    return rejected


def rejected_dialogue(
    value: object, row: Row, system: object, column: str, aside: Aside
) -> list[Message]:
    """Return a whole rejected dialogue; media in its content parts go to the rejected columns.

    Raises:
        RejectedRow: it is no dialogue.
    """
    inner = Aside()
    dialogue = standard_messages(value, system, column, inner)
    for name, found in inner.media.items():
        row[f"rejected_{name}"] = _media(found, name)
    aside.notes |= inner.notes
    return dialogue


def _list_of_dialogues(value: object, column: str, row: Row, side: str) -> list[object]:
    dialogues = parse_literal(value, column) if isinstance(value, str) else value
    if not isinstance(dialogues, (list, tuple)) or not dialogues:
        raise RejectedRow(f"{column} is {kind_of(dialogues)}, expected a list of dialogues")
    if isinstance(dialogues[0], dict):
        dialogues = [dialogues]
    asides = [Aside() for _ in dialogues]
    read = [
        standard_messages(dialogue, column=f"{column}[{number}]", aside=aside)
        for number, (dialogue, aside) in enumerate(zip(dialogues, asides, strict=True), start=1)
    ]
    for name in sorted({name for aside in asides for name in aside.media}):
        row[f"{side}_{name}"] = [_media(aside.media.get(name, []), name) for aside in asides]
    return list[object](read)


def _media(found: list[object], name: str) -> list[object]:
    return images_of(found, name) if name == "images" else clips_of(found, name)


def tools_of(value: object, column: str) -> str | None:
    """Return tools as JSON text with the key order of the source; None when there are none.

    Raises:
        RejectedRow: they are no list of objects.
    """
    text = value if isinstance(value, str) else None
    if text is not None:
        if not text.strip():
            return None
        value, text = _parsed_tools(text, column)
    if isinstance(value, dict):
        value, text = [value], None
    if not isinstance(value, (list, tuple)):
        raise RejectedRow(f"{column} is {kind_of(value)}, expected a list of tools")
    if any(isinstance(tool, str) for tool in value):
        value, text = [_tool_of(tool, column) for tool in value], None
    if not all(isinstance(tool, dict) for tool in value):
        raise RejectedRow(f"{column} holds something that is no object")
    if not value:
        return None
    return text if text is not None else json_text(value, column)


def _parsed_tools(text: str, column: str) -> tuple[object, str | None]:
    """Return what the text holds, and the text itself when it is JSON already."""
    try:
        return json.loads(text), text_of(text, column)
    except (ValueError, RecursionError) as err:
        try:
            return parse_literal(text, column), None
        except RejectedRow:
            raise RejectedRow(f"{column} is not valid JSON: {err}") from err


def _tool_of(tool: object, column: str) -> object:
    return parse_literal(tool, column) if isinstance(tool, str) else tool


def _tools_of_samples(value: object, column: str) -> object:
    if isinstance(value, (list, tuple)) and all(
        tools is None or isinstance(tools, (str, list, tuple)) for tools in value
    ):
        return [tools_of(tools, column) if tools else None for tools in value]
    return tools_of(value, column)


def _objects_of_samples(value: object, column: str) -> object:
    if isinstance(value, (list, tuple)):
        return [objects_of(item, column) if item else None for item in value]
    return objects_of(value, column)


def label_of(value: object, column: str) -> object:
    """Return a label: true or false, a number, a class name, or a list of them.

    Raises:
        RejectedRow: it is none of them.
    """
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        value = parse_literal(value, column)
    if isinstance(value, (list, tuple)):
        return [scalar_of(item, column) for item in value]
    return scalar_of(value, column)


def _settings(value: object, column: str) -> Row:
    found = parse_literal(value, column) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise RejectedRow(f"{column} is {kind_of(found)}, expected an object")
    json_text(found, column)
    return found


CONVERTERS: dict[str, Converter] = {
    "tools": tools_of,
    "images": images_of,
    "videos": clips_of,
    "audios": clips_of,
    "objects": objects_of,
    "rejected_tools": tools_of,
    "rejected_images": images_of,
    "rejected_videos": clips_of,
    "rejected_audios": clips_of,
    "rejected_objects": objects_of,
    **{
        f"{side}_{name}": convert
        for side in ("positive", "negative")
        for name, convert in (
            ("tools", _tools_of_samples),
            ("images", clips_of),
            ("videos", clips_of),
            ("audios", clips_of),
            ("objects", _objects_of_samples),
        )
    },
    "label": label_of,
    "channel": text_of,
    "margin": number_of,
    "chat_template_kwargs": _settings,
}
