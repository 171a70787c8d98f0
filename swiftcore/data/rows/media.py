"""Images, videos, audios and grounding boxes: brought to one form and held against their tags."""

import base64
import io

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.rows.aside import Aside, Message, Row
from swiftcore.data.rows.values import kind_of, number_of, parse_literal, text_of

TAGS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
_BOX_TYPES = ("real", "norm1")


def images_of(value: object, column: str) -> list[object]:
    """Return images as `{"bytes", "path"}`: a path or address, or data in base64.

    Raises:
        RejectedRow: an entry is neither.
    """
    return [_image(item, column) for item in _entries(value, column)]


def clips_of(value: object, column: str) -> list[object]:
    """Return videos or audios: paths, addresses, `{"bytes", "path"}`, or lists of frames.

    Raises:
        RejectedRow: an entry is none of them.
    """
    return [_clip(item, column) for item in _entries(value, column)]


def objects_of(value: object, column: str) -> Row:
    """Return grounding boxes with corners ordered, so that x1 <= x2 and y1 <= y2.

    Raises:
        RejectedRow: there are no boxes, or one has no meaning.
    """
    found = parse_literal(value, column) if isinstance(value, str) else value
    if not isinstance(found, dict) or not isinstance(found.get("bbox"), (list, tuple)):
        raise RejectedRow(f"{column} has no list bbox")
    names = ("ref", "bbox", "bbox_type", "image_id")
    ordered: Row = {name: found[name] for name in names if found.get(name) is not None}
    ordered["bbox"] = [_box(box, column) for box in found["bbox"]]
    refs = ordered.get("ref", [])
    if not isinstance(refs, (list, tuple)):
        raise RejectedRow(f"{column}.ref is {kind_of(refs)}, expected a list of texts")
    if "ref" in ordered:
        ordered["ref"] = [text_of(ref, f"{column}.ref") for ref in refs]
    if ordered.get("bbox_type", "real") not in _BOX_TYPES:
        raise RejectedRow(f"{column}.bbox_type is not one of {', '.join(_BOX_TYPES)}")
    image_ids = ordered.get("image_id", [])
    if not isinstance(image_ids, (list, tuple)) or not all(map(_is_position, image_ids)):
        raise RejectedRow(f"{column}.image_id is no list of positions from 0")
    return ordered


def settle_media(row: Row, aside: Aside, side: str = "", add_tags: bool = False) -> None:
    """Join media found in content parts with the media columns, and count tags against them.

    Args:
        row: a standard row; changed in place.
        aside: the media found in its messages; takes a note where tags and media differ.
        side: prefix of the columns: nothing, or `rejected_`.
        add_tags: put missing tags before the first user message. Without it they stay missing,
            and encoding adds them, as ms-swift does.

    Raises:
        RejectedRow: content parts and a column both bring media, so their order is not known.
    """
    messages = row.get(f"{side}messages")
    for name, found in aside.media.items():
        column = side + name
        if row.get(column):
            raise RejectedRow(f"{column} is given although content parts bring {name} too")
        row[column] = images_of(found, column) if name == "images" else clips_of(found, column)
    for name in sorted(aside.tags_only):
        if not row.get(side + name):
            raise RejectedRow(f"a content part without content, and no column {side}{name}")
    if not isinstance(messages, list):
        return
    for name, tag in TAGS.items():
        media = row.get(side + name)
        if isinstance(media, list) and media:
            missing = len(media) - _count(tag, messages)
            if missing > 0 and add_tags:
                _prepend(tag * missing, messages)
            elif missing < 0:
                aside.notes.add(f"more {tag} tags than {name}; the last ones stay plain text")
    _compare_objects(row.get(f"{side}objects"), messages, row.get(f"{side}images"), aside)


def _compare_objects(
    objects: object, messages: list[Message], images: object, aside: Aside
) -> None:
    if not isinstance(objects, dict):
        return
    for name, tag in (("ref", "<ref-object>"), ("bbox", "<bbox>")):
        listed = objects.get(name)
        if isinstance(listed, list) and len(listed) != _count(tag, messages):
            aside.notes.add(f"the number of {tag} tags is not that of objects.{name}")
    image_ids, num_images = objects.get("image_id"), len(images) if isinstance(images, list) else 0
    if isinstance(image_ids, list) and any(place >= num_images for place in image_ids):
        raise RejectedRow(f"objects.image_id names an image beyond the {num_images} of the row")


def _count(tag: str, messages: list[Message]) -> int:
    return sum(str(message["content"]).count(tag) for message in messages)


def _prepend(tags: str, messages: list[Message]) -> None:
    for message in messages:
        if message["role"] == "user":
            message["content"] = f"{tags}{message['content']}"
            return
    raise RejectedRow(f"{tags} have no place: no message is the user's")


def _entries(value: object, column: str) -> list[object] | tuple[object, ...]:
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        value = parse_literal(value, column)
    return value if isinstance(value, (list, tuple)) else [value]


def _image(value: object, column: str) -> Row:
    if isinstance(value, str):
        return {"bytes": None, "path": text_of(value, column)}
    if isinstance(value, dict) and (value.get("path") or value.get("bytes")):
        path = value.get("path")
        data = _base64(value.get("bytes"), column)
        return {"bytes": data, "path": text_of(path, column) if path else None}
    # An image of Pillow, which a Python caller may hand over, knows how to write itself.
    if type(value).__module__.startswith("PIL.") and hasattr(value, "save"):
        stream = io.BytesIO()
        value.save(stream, format="PNG")  # type: ignore[attr-defined]
        return {"bytes": base64.b64encode(stream.getvalue()).decode(), "path": None}
    raise RejectedRow(f"{column} holds {kind_of(value)}, expected a path or bytes")


def _clip(value: object, column: str) -> object:
    if isinstance(value, str):
        return text_of(value, column)
    if not isinstance(value, (list, tuple)):
        return _image(value, column)
    return [
        text_of(frame, column) if isinstance(frame, str) else _image(frame, column)
        for frame in value
    ]


def _base64(data: object, column: str) -> str | None:
    """Return data as base64 text, since rows are stored as JSON."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return base64.b64encode(data).decode()
    return text_of(data, f"{column}.bytes") if data else None


def _is_position(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _box(box: object, column: str) -> list[object]:
    if not isinstance(box, (list, tuple)) or len(box) not in (2, 4):
        length = len(box) if isinstance(box, (list, tuple)) else kind_of(box)
        raise RejectedRow(f"{column}.bbox has a box of length {length}, expected 2 or 4 numbers")
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in box):
        raise RejectedRow(f"{column}.bbox has a box with something that is no number")
    for x in box:
        number_of(x, f"{column}.bbox")
    if len(box) == 2:
        return list(box)
    x1, y1, x2, y2 = box
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
