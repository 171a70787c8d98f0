"""From rows to single steps: each assistant turn of a row is answered and scored on its own.

A turn is a run of `assistant` and `tool_call` messages. Its prompt is the true history before it,
so an early mistake of the model does not spoil the later steps of the row. A row with a call, the
tool's response and a final answer gives two samples.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swiftcore.evaluation.agent import finish_text, react_from_calls

Row = Mapping[str, Any]
Message = Mapping[str, Any]

_TURN_ROLES = ("assistant", "tool_call")


@dataclass(frozen=True)
class Sample:
    """One step to answer.

    Args:
        row_index: position of the row in the test set.
        step: which assistant turn of the row this is, from 0.
        prompt_row: the row, its messages cut before the turn.
        target: the turn as a model would write it, calls in hermes form.
        target_react: the turn as ReAct text, for the agent metrics.
        error: why the row can't be asked at all; None when it can.
    """

    row_index: int
    step: int
    prompt_row: dict[str, Any]
    target: str
    target_react: str
    error: str | None = None

    @property
    def tools(self) -> Any:
        """Tools the row offers: JSON text, a list, or None."""
        return self.prompt_row.get("tools")


def samples_of_rows(rows: Sequence[Row]) -> list[Sample]:
    """Return every assistant turn of every row; an unusable row gives one sample with an error."""
    return [sample for index, row in enumerate(rows) for sample in _samples_of_row(index, row)]


def rows_digest(rows: Sequence[Row]) -> str:
    """Return the sha256 of the rows in order, to tell whether two reports saw the same test set."""
    digest = hashlib.sha256()
    for row in rows:
        written = json.dumps(row, ensure_ascii=False, sort_keys=True, default=str)
        digest.update(written.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _samples_of_row(index: int, row: Row) -> list[Sample]:
    messages = row.get("messages")
    if not isinstance(messages, list | tuple) or not all(isinstance(m, Mapping) for m in messages):
        return [Sample(index, 0, dict(row), "", "", error="the row has no list of messages")]
    samples = []
    for start, end in _turns(messages):
        turn = messages[start:end]
        prompt_row = {**row, "messages": [dict(message) for message in messages[:start]]}
        samples.append(
            Sample(index, len(samples), prompt_row, _target_text(turn), _target_react(turn))
        )
    if not samples:
        return [Sample(index, 0, dict(row), "", "", error="the row has no assistant message")]
    return samples


def _turns(messages: Sequence[Message]) -> list[tuple[int, int]]:
    turns: list[tuple[int, int]] = []
    for position, message in enumerate(messages):
        if message.get("role") not in _TURN_ROLES:
            continue
        if turns and turns[-1][1] == position:
            turns[-1] = (turns[-1][0], position + 1)
        else:
            turns.append((position, position + 1))
    return turns


def _target_text(turn: Sequence[Message]) -> str:
    parts = [
        f"<tool_call>\n{_call_text(message)}\n</tool_call>"
        if message["role"] == "tool_call"
        else _content(message)
        for message in turn
    ]
    return "\n".join(part for part in parts if part)


def _target_react(turn: Sequence[Message]) -> str:
    calls = [_call_text(message) for message in turn if message["role"] == "tool_call"]
    if calls:
        return react_from_calls(calls)
    return finish_text("\n".join(_content(message) for message in turn).strip())


def _call_text(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _content(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
