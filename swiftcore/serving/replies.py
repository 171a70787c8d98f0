"""The bodies of answers, whole and streamed, as the OpenAI API writes them."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from swiftcore.generation.params import Completion
from swiftcore.serving.chat import ChatAnswer

DONE = b"data: [DONE]\n\n"


def event(body: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def usage(prompt_tokens: int, completions: Sequence[Completion]) -> dict[str, int]:
    """Return token counts; a prompt counts once, however many answers it got."""
    completion_tokens = sum(completion.completion_tokens for completion in completions)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


@dataclass
class Reply:
    """What all bodies of one answer have in common."""

    model: str
    chat: bool
    fingerprint: str | None
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12)

    def whole(self, choices: list[dict[str, Any]], counts: dict[str, int]) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": counts}

    def chunk(
        self, choices: list[dict[str, Any]], counts: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """Return the body of one streamed event."""
        body = self._head("chat.completion.chunk" if self.chat else "text_completion")
        body["choices"] = choices
        if counts is not None:
            body["usage"] = counts
        return body

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def text_choice(
    index: int, text: str, finish_reason: str | None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a choice of a plain completion; whole and streamed look alike."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def chat_choice(
    index: int, answer: ChatAnswer, finish_reason: str, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a choice of a chat answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
    if answer.tool_calls:
        message["content"] = answer.content or None
        message["tool_calls"] = answer.tool_calls
        finish_reason = "tool_calls"
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }


def chat_delta(
    index: int, delta: dict[str, Any], finish_reason: str | None = None
) -> dict[str, Any]:
    """Return a choice of a streamed chat event."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
