"""A conversation as the OpenAI messages that chat templates read.

Templates disagree about tool calls: arguments as an object or as its JSON text, content `""` or
none beside calls, call ids of nine letters or made from the tool's name. Which one a template can
write is found by trying, once a template.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from swiftcore.errors import DataError
from swiftcore.template.conversation import AnswerPart, Conversation, ToolCall
from swiftcore.template.spans import Author

Rewrite = Callable[[str, Author], str]
"""What happens to each text of the row on its way into a message."""

Renders = Callable[[list[dict[str, Any]], list[Any]], str]
"""A template over messages and tools."""

_NAME, _KEY, _VALUE = "probe_tool", "probe_key", "probe value"
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "another_tool",
        "description": "Another tool.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "A city."}},
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class MessageStyle:
    """How rows are handed to one chat template.

    Args:
        parts: content as a list with one part of text, instead of as a string.
        text_arguments: arguments as JSON text instead of an object.
        no_content: content None instead of "" in a message that only calls.
        named_ids: call ids like `functions.name:0` instead of nine letters and digits.
    """

    parts: bool = False
    text_arguments: bool = False
    no_content: bool = False
    named_ids: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """Messages, and for each answer the range of messages it became."""

    messages: list[dict[str, Any]]
    answers: list[tuple[int, int]]


def write_messages(
    conversation: Conversation,
    *,
    system: str | None,
    style: MessageStyle,
    rewrite: Rewrite = lambda text, author: text,
) -> Written:
    """Return the messages of a conversation.

    Args:
        conversation: the row.
        system: the system prompt; None for no system message.
        style: how calls are written.
        rewrite: applied to every text of the row.
    """
    messages: list[dict[str, Any]] = []
    answers: list[tuple[int, int]] = []
    if system is not None:
        content = as_content(rewrite(system, Author.DATA), style)
        messages.append({"role": "system", "content": content})
    num_calls = 0
    asked: list[tuple[str, str]] = []
    for turn in conversation.rounds:
        for place, query in enumerate(turn.queries):
            content = as_content(rewrite(query, Author.DATA), style)
            if turn.source == "user":
                messages.append({"role": "user", "content": content})
                continue
            name, call_id = asked[min(place, len(asked) - 1)] if asked else ("tool", "call00000")
            messages.append(
                {"role": "tool", "name": name, "tool_call_id": call_id, "content": content}
            )
        if turn.answer is None:
            continue
        message, asked = _answer(turn.answer, style, num_calls, rewrite)
        num_calls += len(asked)
        answers.append((len(messages), len(messages) + 1))
        messages.append(message)
    return Written(messages, answers)


def find_text_style(render: Renders) -> MessageStyle:
    """Return whether a template wants content as text or as parts; text when it takes neither."""
    for style in (MessageStyle(), MessageStyle(parts=True)):
        question = {"role": "user", "content": as_content(_VALUE, style)}
        try:
            text = render([question], [])
        except DataError:
            continue
        if _VALUE in text and "{'type'" not in text:  # Python's repr of the parts is no prompt
            return style
    return MessageStyle()


def find_call_style(render: Renders, style: MessageStyle) -> MessageStyle:
    """Return the first style whose calls a template writes whole; the plain one when none is.

    Args:
        render: the template; raises DataError for what it refuses.
        style: how it wants text.
    """
    call = ToolCall(_NAME, {_KEY: _VALUE, "probe_flag": True})
    part = AnswerPart("", call, None, None, 1)
    question = {"role": "user", "content": as_content("What now?", style)}
    for named_ids, text_arguments, no_content in product((False, True), repeat=3):
        tried = MessageStyle(style.parts, text_arguments, no_content, named_ids)
        message, _ = _answer((part,), tried, 0, lambda text, author: text)
        try:
            text = render([question, message], [PROBE_TOOL])
        except DataError:
            continue
        whole = all(words in text for words in (_NAME, _KEY, _VALUE))
        # Python's repr of a dict, or JSON text written as a JSON string: no arguments any more.
        if whole and f"{{'{_KEY}'" not in text and f'\\"{_KEY}' not in text:
            return tried
    return style


def as_content(text: str, style: MessageStyle) -> Any:
    """Return the content of a message that says `text`."""
    return [{"type": "text", "text": text}] if style.parts else text


def _answer(
    parts: tuple[AnswerPart, ...], style: MessageStyle, num_before: int, rewrite: Rewrite
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return one assistant message, and name and id of each of its calls."""
    text = "".join(part.text for part in parts if part.call is None)
    calls: list[dict[str, Any]] = []
    for part in parts:
        if part.call is None:
            continue
        number = num_before + len(calls)
        # The name is data: it is rewritten before it becomes part of an id.
        name = rewrite(part.call.name, Author.DATA)
        arguments: Any = _rewrite_all(part.call.arguments, rewrite)
        if style.text_arguments:
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append(
            {
                "id": f"functions.{name}:{number}" if style.named_ids else f"call{number:05d}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        )
    content = as_content(rewrite(text, Author.ASSISTANT), style)
    if not calls:
        return {"role": "assistant", "content": content}, []
    message = {
        "role": "assistant",
        "content": None if style.no_content and not text else content,
        "tool_calls": calls,
    }
    return message, [(call["function"]["name"], call["id"]) for call in calls]


def rewrite_tools(tools: tuple[dict[str, Any], ...], rewrite: Rewrite) -> list[Any]:
    """Return tool definitions with each of their texts rewritten."""
    return [_rewrite_all(tool, rewrite) for tool in tools]


def _rewrite_all(value: Any, rewrite: Rewrite) -> Any:
    if isinstance(value, str):
        return rewrite(value, Author.DATA)
    if isinstance(value, dict):
        return {_rewrite_all(k, rewrite): _rewrite_all(v, rewrite) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rewrite_all(item, rewrite) for item in value]
    return value
