"""Rewards for length and repetition. Lengths are counted in tokens: `response_token_ids`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.rewards.answers import Accuracy
from swiftcore.rewards.columns import column_of, texts_of


@dataclass(frozen=True)
class CosineLength:
    """Right answers earn more when they are short, wrong ones lose less when they are long.

    From no token to `cosine_max_len` the reward follows half a cosine, and stays there beyond
    (ms-swift lets it turn back). None where there is no solution.

    Args:
        cosine_max_len: tokens at which the end is reached.
        cosine_min_len_value_correct: of a right answer without a token.
        cosine_max_len_value_correct: of a right answer of `cosine_max_len`.
        cosine_min_len_value_wrong: of a wrong answer without a token.
        cosine_max_len_value_wrong: of a wrong answer of `cosine_max_len`.

    Source: Yeo et al., "Demystifying Long Chain-of-Thought Reasoning in LLMs", 2025.
    """

    cosine_max_len: int
    cosine_min_len_value_correct: float = 1.0
    cosine_max_len_value_correct: float = 0.5
    cosine_min_len_value_wrong: float = -0.5
    cosine_max_len_value_wrong: float = 0.0

    def __post_init__(self) -> None:
        _require("cosine_max_len", self.cosine_max_len, self.cosine_max_len > 0, "above 0")

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return a reward or None for each; needs `solution` and `response_token_ids`."""
        right = Accuracy()(completions, **columns)
        lengths = _lengths(columns, completions, "cosine")
        return [
            None if value is None else self._at(length, value == 1.0)
            for value, length in zip(right, lengths, strict=True)
        ]

    def _at(self, length: int, right: bool) -> float:
        if right:
            start, end = self.cosine_min_len_value_correct, self.cosine_max_len_value_correct
        else:
            start, end = self.cosine_min_len_value_wrong, self.cosine_max_len_value_wrong
        share = min(length / self.cosine_max_len, 1.0)
        return start - (start - end) * (1 - math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class SoftOverlong:
    """0 up to `soft_max_length - soft_cache_length` tokens, from there down to -1 at the maximum.

    It stays -1 beyond, as in the paper (ms-swift goes on falling).

    Source: Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", 2025,
    equation 13.
    """

    soft_max_length: int
    soft_cache_length: int

    def __post_init__(self) -> None:
        fits = 0 < self.soft_cache_length < self.soft_max_length
        _require("soft_cache_length", self.soft_cache_length, fits, "from 1 to soft_max_length - 1")

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return a penalty for each completion; needs `response_token_ids`."""
        start = self.soft_max_length - self.soft_cache_length
        lengths = _lengths(columns, completions, "soft_overlong")
        return [
            max(min((start - length) / self.soft_cache_length, 0.0), -1.0) for length in lengths
        ]


@dataclass(frozen=True)
class Repetition:
    """`repetition_max_penalty` times the share of n-grams of words that have occurred before.

    Words are what white space separates, in lower case. 0 for fewer words than one n-gram has.

    Source: Yeo et al., "Demystifying Long Chain-of-Thought Reasoning in LLMs", 2025.
    """

    repetition_n_grams: int = 3
    repetition_max_penalty: float = -1.0

    def __post_init__(self) -> None:
        size, most = self.repetition_n_grams, self.repetition_max_penalty
        _require("repetition_n_grams", size, size >= 1, "at least 1")
        _require("repetition_max_penalty", most, most <= 0, "0 or less")

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return a penalty for each completion."""
        return [self._penalty(text.lower().split()) for text in texts_of(completions)]

    def _penalty(self, words: list[str]) -> float:
        size = self.repetition_n_grams
        total = len(words) - size + 1
        if total < 1:
            return 0.0
        distinct = len({tuple(words[at : at + size]) for at in range(total)})
        return self.repetition_max_penalty * (1 - distinct / total)


def _lengths(columns: Mapping[str, Any], completions: Sequence[object], reward: str) -> list[int]:
    return [len(ids) for ids in column_of(columns, "response_token_ids", completions, reward)]


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise UsageError(
            "a setting of a reward has no meaning", where=name, found=value, expected=expected
        )
