"""Which rows a person should look at: few, and of every kind there is.

The extremes of length come first, then one row for each kind of content, the one nearest to the
median length that is not chosen yet; what is left is spread over the lengths.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swiftcore.template.template import Template

NUM_SAMPLES = 10
KINDS = {
    "tools": "tools",
    "thinking": "a think block",
    "rounds": "several rounds",
    "cut": "a cut at max_length",
    "weighted": "weights other than 0 and 1",
    "control": "the text of a control token in the data",
    "script": "a script other than Latin",
}
# Letters outside Latin; \W leaves out what is no letter, and letterlike signs are no script.
_OTHER_SCRIPT = re.compile(r"[^\W\d_\u0000-\u024f\u1e00-\u1eff\u2100-\u214f\ufb00-\ufb06]")
_ANSWERS = ("assistant", "tool_call")
_TOOL_ROLES = ("tool_call", "tool_response", "tool")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may be shown.

    Args:
        place: where the caller finds it.
        length: its number of tokens.
        kinds: keys of `KINDS`.
    """

    place: int
    length: int
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen row and the reason; `also` are the other kinds it is of."""

    place: int
    reason: str
    also: tuple[str, ...] = field(default=())

    @property
    def line(self) -> str:
        """The reason as a sentence."""
        also = f" It also has {_listed(self.also)}." if self.also else ""
        return f"Chosen as {self.reason}.{also}"


def choose_samples(candidates: Sequence[Candidate], count: int = NUM_SAMPLES) -> list[Choice]:
    """Return up to `count` rows in the order in which they were chosen."""
    ranked = sorted(candidates, key=lambda row: (row.length, row.place))
    if not ranked:
        return []
    median = ranked[(len(ranked) - 1) // 2]
    chosen: dict[int, tuple[Candidate, str, str]] = {}

    def choose(row: Candidate, reason: str, kind: str = "") -> None:
        if len(chosen) < count:
            chosen.setdefault(row.place, (row, reason, kind))

    choose(ranked[0], "the shortest row" if len(ranked) > 1 else "the only row")
    choose(ranked[-1], "the longest row")
    choose(median, "a row of median length")
    for kind, text in KINDS.items():
        holders = [row for row in ranked if kind in row.kinds and row.place not in chosen]
        if holders:
            nearest = min(holders, key=lambda row: (abs(row.length - median.length), row.place))
            choose(nearest, f"a row with {text}", kind)
    left = [row for row in ranked if row.place not in chosen]
    wanted = min(count - len(chosen), len(left))
    for step in range(wanted):
        choose(left[(2 * step + 1) * len(left) // (2 * wanted)], "one more, by length")
    return [
        Choice(place, reason, tuple(KINDS[name] for name in KINDS if name in row.kinds - {kind}))
        for place, (row, reason, kind) in chosen.items()
    ]


class KindReader:
    """Says of which kinds a row is, for one template."""

    def __init__(self, template: Template) -> None:
        pieces = template.pieces
        tokens = pieces.token_ids
        self._any = _pattern(tokens)
        # The words of the model may hold tokens such as <think>; only special ones stay text.
        self._special = _pattern(text for text, token in tokens.items() if pieces.is_special(token))

    def kinds(self, row: Mapping[str, Any], *, is_weighted: bool, is_cut: bool) -> frozenset[str]:
        """Return what a standard row has, as keys of `KINDS`.

        Args:
            row: the row as it was before encoding.
            is_weighted: some token weighs neither 0 nor 1.
            is_cut: the encoded row lost tokens to max_length.
        """
        kinds = {kind for kind, there in (("weighted", is_weighted), ("cut", is_cut)) if there}
        messages = [each for each in row.get("messages") or () if isinstance(each, Mapping)]
        roles = [message.get("role") for message in messages]
        if row.get("tools") or any(role in _TOOL_ROLES for role in roles):
            kinds.add("tools")
        if roles.count("user") > 1:
            kinds.add("rounds")
        for message in messages:
            content = message.get("content")
            if not isinstance(content, str):
                continue
            is_answer = message.get("role") in _ANSWERS
            if is_answer and "<think>" in content:
                kinds.add("thinking")
            if _OTHER_SCRIPT.search(content):
                kinds.add("script")
            if (self._special if is_answer else self._any).search(content):
                kinds.add("control")
        return frozenset(kinds)


def _pattern(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
