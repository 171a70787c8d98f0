"""How much each part of an answer counts in the loss.

A loss scale is a base (which answers count) and rules (weights inside an answer), joined by `+`:
`last_round+hermes+ignore_empty_think`. Weights of several rules multiply. Names are those of
ms-swift 3.10 and 4.x.
"""

import re
from dataclasses import dataclass
from typing import Literal

from swiftcore.template.registry import unknown_name

Base = Literal["default", "last_round", "all"]
Run = tuple[int, float]
"""A run of text: its length in characters and its weight."""


@dataclass(frozen=True, slots=True)
class PatternRule:
    """Text that matches gets `weight`, the rest 1."""

    pattern: re.Pattern[str]
    weight: float

    def runs(self, text: str) -> list[Run]:
        """Cut `text` at the matches."""
        runs: list[Run] = []
        position = 0
        for found in self.pattern.finditer(text):
            runs += [(found.start() - position, 1.0), (found.end() - found.start(), self.weight)]
            position = found.end()
        return [*runs, (len(text) - position, 1.0)]


@dataclass(frozen=True, slots=True)
class KeywordRule:
    """Text is cut at literal keywords; each gives its own weight and that of what follows it."""

    weights: dict[str, tuple[float, float]]

    def runs(self, text: str) -> list[Run]:
        """Cut `text` at the keywords."""
        longest_first = sorted(self.weights, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)))
        runs: list[Run] = []
        position, body = 0, 1.0
        for found in pattern.finditer(text):
            runs.append((found.start() - position, body))
            keyword, body = self.weights[found.group()]
            runs.append((len(found.group()), keyword))
            position = found.end()
        return [*runs, (len(text) - position, body)]


_BASES: dict[str, Base] = {"default": "default", "last_round": "last_round", "all": "all"}
_RULES: dict[str, PatternRule | KeywordRule] = {
    "ignore_empty_think": PatternRule(re.compile(r"\A<think>\s*</think>\s*"), 0.0),
    "hermes": PatternRule(re.compile(r"<tool_call>.+?</tool_call>", re.DOTALL), 2.0),
    "react": KeywordRule(
        {
            "Action:": (2.0, 2.0),
            "Action Input:": (2.0, 2.0),
            "Thought:": (1.0, 1.0),
            "Final Answer:": (1.0, 1.0),
            "Observation:": (2.0, 0.0),
        }
    ),
}
_OLD_NAMES = {"last_round_with_ignore_empty_think": "last_round+ignore_empty_think"}


@dataclass(frozen=True, slots=True)
class LossScale:
    """A base and its rules.

    Args:
        name: canonical name, as written into settings.
        base: default: every answer; last_round: answers after the last question; all: every token.
        rules: weights inside an answer.
    """

    name: str
    base: Base
    rules: tuple[PatternRule | KeywordRule, ...]

    def runs(self, text: str) -> list[Run]:
        """Return the weighted runs of one answer's text; their lengths add up to the text's."""
        runs: list[Run] = [(len(text), 1.0)]
        for rule in self.rules:
            runs = [
                (length, outer * inner)
                for start, stop, outer in _positions(runs)
                for length, inner in rule.runs(text[start:stop])
            ]
        return [run for run in runs if run[0]]


def parse_loss_scale(name: str) -> LossScale:
    """Read a loss scale's name.

    Raises:
        UsageError: a part of it is unknown, or two bases are named.
    """
    base: Base | None = None
    rules: list[PatternRule | KeywordRule] = []
    canonical = "+".join(_OLD_NAMES.get(part, part) for part in name.split("+"))
    for part in canonical.split("+"):
        if part in _BASES and base is None:
            base = _BASES[part]
        elif part in _RULES:
            rules.append(_RULES[part])
        else:
            raise unknown_name("loss scale", part, [*_BASES, *_RULES])
    return LossScale(canonical, base or "default", tuple(rules))


def _positions(runs: list[Run]) -> list[tuple[int, int, float]]:
    positions: list[tuple[int, int, float]] = []
    start = 0
    for length, weight in runs:
        positions.append((start, start + length, weight))
        start += length
    return positions
