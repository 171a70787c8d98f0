"""Content that is a list of parts: OpenAI's, Anthropic's blocks, and LLaMA-Factory's v1 values.

Text stays text, thoughts become `<think>` blocks, an image, video or audio becomes its tag and is
handed over beside the text, a tool call or result becomes a message of its own.
"""

from typing import Literal, NamedTuple

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.rows.aside import Aside
from swiftcore.data.rows.calls import call_of
from swiftcore.data.rows.values import json_text, parse_literal, text_of

_TEXTS = ("text", "input_text", "output_text", "refusal")
_THOUGHTS = ("thinking", "reasoning")
_MEDIA = {
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), "audio"),
}
_MAX_DEPTH = 4


class Piece(NamedTuple):
    """A stretch of content: text of the message itself, or a call or result beside it."""

    kind: Literal["text", "call", "result"]
    text: str
    id: object = None


def read_parts(
    parts: list[object] | tuple[object, ...], where: str, aside: Aside, depth: int = 0
) -> list[Piece]:
    """Return content parts as pieces in their order, neighbouring texts joined.

    Raises:
        RejectedRow: a part has no type, a type that text can't express, or no content.
    """
    pieces: list[Piece] = []
    texts: list[str] = []
    for part in parts:
        piece = _piece(part, where, aside, depth)
        if piece.kind == "text":
            texts.append(piece.text)
            continue
        if texts:
            pieces.append(Piece("text", "".join(texts)))
            texts = []
        pieces.append(piece)
    if texts:
        pieces.append(Piece("text", "".join(texts)))
    return pieces


def are_parts(value: object) -> bool:
    """Tell content parts from a tool's result that happens to be a list."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(part, dict) and _has_content(part) for part in value)
    )


def thought_text(value: object, where: str) -> str:
    """Return reasoning in the form that chat templates give it inside an answer."""
    text = text_of(value, where).strip("\n")
    return f"<think>\n{text}\n</think>\n\n" if text else ""


def _has_content(part: dict[object, object]) -> bool:
    kind = part.get("type")
    if not isinstance(kind, str):
        return False
    if kind in _TEXTS:
        return isinstance(_first(part, ("text", "value")), str)
    return kind in _MEDIA and _media_value(part, kind) is not None


def _piece(part: object, where: str, aside: Aside, depth: int) -> Piece:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise RejectedRow(f"{where}: a content part is no object with a type")
    inside = f"{where}: {kind[:40]} part"
    if kind in _TEXTS:
        return Piece("text", text_of(_first(part, ("text", "value", "refusal", "content")), inside))
    if kind in _THOUGHTS:
        thought = _first(part, ("thinking", "reasoning", "value", "text"))
        return Piece("text", thought_text(thought, inside))
    if kind in _MEDIA:
        return _media_piece(part, kind, inside, aside)
    if kind in ("tool_use", "tool_call"):
        value = part.get("value", part)
        value = parse_literal(value, inside) if isinstance(value, str) else value
        text, call_id = call_of(value, where)
        return Piece("call", text, part.get("id", call_id))
    if kind == "tool_result":
        text = _result_text(part.get("content"), inside, aside, depth)
        if part.get("is_error"):
            aside.leave_out("is_error")
        return Piece("result", text, part.get("tool_use_id"))
    raise RejectedRow(f"{where}: content part of type {kind[:40]!r} is not supported")


def _result_text(content: object, where: str, aside: Aside, depth: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return text_of(content, where)
    if depth < _MAX_DEPTH and isinstance(content, list) and are_parts(content):
        return "".join(piece.text for piece in read_parts(content, where, aside, depth + 1))
    return json_text(content, where)


def _media_piece(part: dict[object, object], kind: str, where: str, aside: Aside) -> Piece:
    medium = _MEDIA[kind]
    value = _media_value(part, kind)
    if value is None:
        aside.tags_only.add(f"{medium}s")
    else:
        aside.add_media(medium, _address(value, medium, where))
    return Piece("text", f"<{medium}>")


def _media_value(part: dict[object, object], kind: str) -> object:
    return _first(
        part, (kind, f"{_MEDIA[kind]}_url", _MEDIA[kind], "source", "url", "path", "value")
    )


def _address(value: object, medium: str, where: str) -> object:
    """Return what a medium's column can hold: a path, an address, or data as a `data:` address."""
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("url"), str):
        return value["url"]
    data = value.get("data")
    if isinstance(data, str):
        kind = value.get("media_type")
        if kind is None and isinstance(value.get("format"), str):
            kind = f"{medium}/{value['format']}"
        return f"data:{text_of(kind or '', where)};base64,{data}"
    if value.get("path") is not None or value.get("bytes") is not None:
        return value
    keys = ", ".join(str(key)[:20] for key in list(value)[:5]) or "none"
    raise RejectedRow(f"{where} has neither url nor data: keys are {keys}")


def _first(part: dict[object, object], keys: tuple[str, ...]) -> object:
    return next((part[key] for key in keys if part.get(key) is not None), None)
