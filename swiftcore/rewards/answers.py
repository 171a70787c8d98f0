"""Rewards that hold a completion against a solution: 1 or 0, None where there is no solution."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swiftcore.rewards.columns import solutions_of, texts_of
from swiftcore.scores.mathematics import answers_agree, boxed_run, final_answer
from swiftcore.scores.text import exact_match, without_thinking

_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
# A formula that the words before it announce as the answer.
_ANNOUNCED = re.compile(
    r"answer\s*(?:is|:|=)\s*:?\s*(?:\$\$?|\\\(|\\\[)(.+?)(?:\$\$?|\\\)|\\\])",
    re.IGNORECASE | re.DOTALL,
)
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\s+[A-Za-z]{2,}")


@dataclass(frozen=True)
class Accuracy:
    """1.0 where a completion's answer has the solution's value.

    The answer is what is in `<answer>`; without that tag only a formula counts that is boxed or
    announced ("the answer is $4$"). Boxes joined by a comma or "and" are one answer of several
    parts. A solution without an answer is met by nothing.

    Source: the reward `accuracy` of ms-swift, in its documentation of GRPO.
    """

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return 1.0, 0.0 or None for each completion; needs `solution`."""
        return _judged("accuracy", completions, columns, _has_value)


@dataclass(frozen=True)
class MathAnswer:
    """1.0 where the answer that a completion ends with has the solution's value.

    Boxed, after `####`, after "the answer is", or the last number: however it is stated.
    """

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return 1.0, 0.0 or None for each completion; needs `solution`."""
        return _judged("math", completions, columns, _ends_with_value)


@dataclass(frozen=True)
class ExactMatch:
    """1.0 where a completion, without a think block, is the solution but for space around it."""

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return 1.0, 0.0 or None for each completion; needs `solution`."""
        return _judged("exact_match", completions, columns, _is_text)


def _judged(
    name: str,
    completions: Sequence[str | None],
    columns: dict[str, Any],
    agrees: Callable[[str, str], bool],
) -> list[float | None]:
    texts = texts_of(completions)
    solutions = solutions_of(columns, texts, name)
    return [
        None if solution is None else float(agrees(text, solution))
        for text, solution in zip(texts, solutions, strict=True)
    ]


def _has_value(text: str, solution: str) -> bool:
    tagged, expected = _tagged(text), _stated(solution)
    answer = _stated(tagged) if tagged is not None else _formula(text)
    return bool(answer and expected) and answers_agree(answer or "", expected or "")


def _ends_with_value(text: str, solution: str) -> bool:
    tagged, expected = _tagged(text), _stated(solution)
    answer = final_answer(without_thinking(text)) if tagged is None else _stated(tagged)
    return bool(answer and expected) and answers_agree(answer or "", expected or "")


def _is_text(text: str, solution: str) -> bool:
    return exact_match(without_thinking(text), without_thinking(solution)) == 1.0


def _tagged(text: str) -> str | None:
    found = _ANSWER_TAG.search(text)
    return found.group(1).strip() if found else None


def _formula(text: str) -> str | None:
    """Return the answer that is boxed, or announced as a formula."""
    announced = _ANNOUNCED.findall(text)
    return _boxed(text) or (announced[-1].strip() if announced else None)


def _stated(text: str) -> str | None:
    """Return the answer of a text that may be nothing but an answer."""
    tagged = _tagged(text)
    text = text if tagged is None else tagged
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    if "####" in text or _PROSE.search(text):
        return final_answer(text)
    return text.strip() or None


def _boxed(text: str) -> str | None:
    return ", ".join(boxed_run(text)) or None
