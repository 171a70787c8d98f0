"""Rewards for the form of a completion: 1.0 where it has it, else 0.0."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from swiftcore.rewards.columns import texts_of


class _Form:
    """The whole text matches a pattern."""

    _pattern: ClassVar[re.Pattern[str]]

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return 1.0 or 0.0 for each completion."""
        return [float(bool(self._pattern.fullmatch(text))) for text in texts_of(completions)]


@dataclass(frozen=True)
class ThinkAnswerForm(_Form):
    """`<think>...</think>`, white space, `<answer>...</answer>`, and nothing before or after.

    Source: the reward `format` of ms-swift; the form is that of DeepSeek-R1.
    """

    _pattern = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)


@dataclass(frozen=True)
class ReactForm(_Form):
    """`<think>...</think>`, white space, `Action: ... Action Input: ...` to the end.

    Source: the reward `react_format` of ms-swift.
    """

    _pattern = re.compile(r"<think>.*?</think>\s*Action:.*?Action Input:.*", re.DOTALL)
