"""Where each call and each response of a conversation stands."""

from swiftcore.template.agents.base import CallPlace, ToolResponse
from swiftcore.template.conversation import AnswerPart, Round


def tool_responses(rounds: tuple[Round, ...], index: int) -> list[ToolResponse]:
    """Return the responses of a round, each with the call it answers."""
    previous = rounds[index - 1].answer if index else None
    calls = [part.call for part in previous or () if part.call is not None]
    number = sum(len(turn.queries) for turn in rounds[:index] if turn.source == "tool")
    return [
        ToolResponse(content, calls[place] if place < len(calls) else None, number + place)
        for place, content in enumerate(rounds[index].queries)
    ]


def count_calls(rounds: tuple[Round, ...]) -> int:
    """Return how many calls the rounds hold."""
    return sum(part.call is not None for turn in rounds for part in turn.answer or ())


def call_place(
    parts: tuple[AnswerPart, ...], position: int, *, before: str, earlier: int
) -> CallPlace:
    """Return where the call at `position` of an answer stands.

    Args:
        parts: the answer.
        position: of the call's part.
        before: the answer's text up to there.
        earlier: calls of the answers before this one.
    """
    return CallPlace(
        before,
        earlier + sum(part.call is not None for part in parts[:position]),
        is_first=position == 0 or parts[position - 1].call is None,
        is_last=position + 1 == len(parts) or parts[position + 1].call is None,
    )
