"""A reward for calling the right tool with the right arguments."""

import json
from dataclasses import dataclass
from typing import Any

from swiftcore.rewards.columns import solutions_of, texts_of

_ACTION, _INPUT = "Action:", "Action Input:"


@dataclass(frozen=True)
class ToolbenchCall:
    """1.0 where the last call of a completion is the last call of the solution, else 0.0.

    Calls are written `Action: name`, `Action Input: arguments`. Arguments are equal as JSON where
    both are JSON, in any order, else as they are written. No call is equal to no call.

    Source: the reward `toolbench` of ms-swift, where an F1 of arguments other than 1 earns nothing.
    """

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return 1.0, 0.0 or None for each completion; needs `solution`."""
        texts = texts_of(completions)
        solutions = solutions_of(columns, texts, "toolbench")
        return [
            None if solution is None else float(_last_call(text) == _last_call(solution))
            for text, solution in zip(texts, solutions, strict=True)
        ]


def _last_call(text: str) -> tuple[str | None, str, Any]:
    """Return name, kind of arguments and arguments."""
    _, has_input, written = text.rpartition(_INPUT)
    _, has_action, action = text.rpartition(_ACTION)
    name = action.partition(_INPUT)[0].strip() if has_action else None
    given = written.strip() if has_input else "{}"
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return name, "text", given
    # As JSON text with sorted keys: in Python, True is 1.
    return name, "json", json.dumps(value, sort_keys=True)
