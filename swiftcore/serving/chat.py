"""The chat side of a served model: conversation to tokens, answer to text and tool calls."""

import json
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import SwiftError
from swiftcore.serving.api_errors import bad_request

if TYPE_CHECKING:
    from swiftcore.template import Template


@dataclass(frozen=True)
class ChatAnswer:
    """What an answer says and which tools it calls."""

    content: str
    tool_calls: list[dict[str, Any]]


def load_serving_template(folder: Path, tokenizer: Any) -> "Template":
    """Return the template a model was trained with, for prompts of any length.

    Training may cut or drop long rows; a served prompt is answered whole or refused.

    Raises:
        ModelMissing: the folder does not say which template it is.
    """
    from swiftcore.template import load_template

    template = load_template(folder, tokenizer)
    template.options = replace(template.options, max_length=None, truncation_strategy="delete")
    return template


def encode_chat(template: "Template", row: dict[str, Any]) -> list[int]:
    """Return the prompt tokens of a conversation.

    Raises:
        ApiError: the template can't write this conversation.
    """
    try:
        encoded = template.encode(row, mode="infer")
    except SwiftError as error:
        raise bad_request(f"messages: {error.message}", param="messages") from error
    assert not isinstance(encoded, list)  # only truncation makes lists, and serving has none
    return encoded.input_ids


def read_answer(template: "Template", text: str, tools: list[Any]) -> ChatAnswer:
    """Split an answer into text and OpenAI tool calls; without tools it is all text."""
    if not tools:
        return ChatAnswer(text, [])
    parsed = template.parse_tool_calls(text, tools)
    if not parsed.calls:
        return ChatAnswer(text, [])
    tool_calls = [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
            },
        }
        for call in parsed.calls
    ]
    return ChatAnswer(parsed.text.strip(), tool_calls)
