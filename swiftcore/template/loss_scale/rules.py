"""Weights inside an answer: rules that cut its text into runs.

Sources: the maps of ms-swift 3.10 and 4.x; the idea is that of Li et al., "ModelScope-Agent",
arXiv:2309.00986.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

Run = tuple[int, float]
"""A run of text: its length in characters and its weight."""


class Rule(Protocol):
    """Cuts an answer into weighted runs whose lengths add up to the text's."""

    def runs(self, text: str, query: str) -> list[Run]:
        """Cut `text`, the answer to `query`."""
        ...


@dataclass(frozen=True)
class PatternRule:
    """Text that matches an expression gets its weight, the rest 1."""

    weights: Mapping[str, float]

    def runs(self, text: str, query: str) -> list[Run]:
        """Cut `text` at the matches; of two that begin at one place the first rule's counts."""
        runs: list[Run] = []
        position = 0
        found = {index: rule.search(text) for index, rule in enumerate(self._patterns)}
        weights = list(self.weights.values())
        while True:
            for index, match in found.items():
                while match is not None and (match.start() < position or not match.group()):
                    after = max(position, match.end() + (not match.group()))
                    # A search from behind the end would begin at the end, and find nothing anew.
                    pattern = self._patterns[index]
                    match = pattern.search(text, after) if after <= len(text) else None
                found[index] = match
            left = [(match.start(), index) for index, match in found.items() if match is not None]
            if not left:
                return [*runs, (len(text) - position, 1.0)]
            start, index = min(left)
            match = found[index]
            assert match is not None
            runs += [(start - position, 1.0), (match.end() - start, weights[index])]
            position = match.end()

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [re.compile(source, re.DOTALL) for source in self.weights]


@dataclass(frozen=True)
class KeywordRule:
    """Text is cut at literal keywords; each gives its own weight and that of what follows it."""

    weights: Mapping[str, tuple[float, float]]

    def runs(self, text: str, query: str) -> list[Run]:
        """Cut `text` at the keywords."""
        runs: list[Run] = []
        position, body = 0, 1.0
        for found in self._pattern.finditer(text):
            runs.append((found.start() - position, body))
            keyword, body = self.weights[found.group()]
            runs.append((len(found.group()), keyword))
            position = found.end()
        return [*runs, (len(text) - position, body)]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.weights, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


@dataclass(frozen=True)
class QueryRule:
    """Where the question holds one of some texts, the whole answer has one weight."""

    weights: Mapping[str, float]
    otherwise: Rule = field(default_factory=lambda: PatternRule({}))

    def runs(self, text: str, query: str) -> list[Run]:
        """Weigh `text` as a whole, or as the other rule does."""
        for part, weight in self.weights.items():
            if part in query:
                return [(len(text), weight)]
        return self.otherwise.runs(text, query)


_REACT = {
    "Action:": (2.0, 2.0),
    "Action Input:": (2.0, 2.0),
    "Thought:": (1.0, 1.0),
    "Final Answer:": (1.0, 1.0),
    "Observation:": (2.0, 0.0),
}

_SEED_NO_BUDGET = (
    r"\A<seed:think>\s*<seed:cot_budget_reflect>"
    r"The current thinking budget is 0, so I will directly start answering the question\."
    r"</seed:cot_budget_reflect>\s*</seed:think>\s*"
)

RULES: dict[str, Rule] = {
    "agentflan": KeywordRule(
        {
            **dict.fromkeys(
                (
                    "Name:",
                    "Action:",
                    "ACTION:",
                    "Tool:",
                    "Command",
                    "Arguments:",
                    "action input",
                    "ACTION_INPUT:",
                    "Action Input:",
                ),
                (1.0, 3.0),
            ),
            "Thought:": (1.0, 1.0),
            "Final Answer:": (1.0, 1.0),
            "Observation:": (2.0, 0.0),
        }
    ),
    "alpha_umi": KeywordRule({**_REACT, "Next:": (2.0, 2.0)}),
    "hermes": PatternRule({r"<tool_call>.+?</tool_call>": 2.0}),
    "ignore_empty_think": PatternRule(
        {
            r"\A<think>\s*</think>\s*": 0.0,
            # How other families say that they don't think: DeepSeek-V3.1 and GLM-4.7, Gemma 4,
            # and Seed-OSS with a thinking budget of nothing.
            r"\A</think>\s*": 0.0,
            r"\A<\|channel>thought\n<channel\|>": 0.0,
            _SEED_NO_BUDGET: 0.0,
        }
    ),
    "ignore_think_prefix": PatternRule({r"\A<think>\n?": 0.0}),
    "qwen": KeywordRule(
        {
            "✿FUNCTION✿:": (2.0, 2.0),
            "✿ARGS✿:": (2.0, 2.0),
            "✿RETURN✿:": (1.0, 1.0),
            "✿RESULT✿:": (2.0, 0.0),
        }
    ),
    "react": KeywordRule(_REACT),
}
