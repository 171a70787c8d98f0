"""How much each part of an answer counts in the loss.

A loss scale is a base (which answers count) and rules (weights inside an answer), joined by `+`:
`last_round+hermes+ignore_empty_think`. Weights of several rules multiply. Names are those of
ms-swift 3.10 and 4.x; a part that ends with .yaml, .yml or .json is a file with a map of one's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swiftcore.errors import UsageError
from swiftcore.template.loss_scale.maps import is_map_file, read_map, rule_of_map
from swiftcore.template.loss_scale.rules import RULES, Rule, Run
from swiftcore.template.registry import unknown_name

Base = Literal["default", "last_round", "all"]
_BASES: dict[str, Base] = {"default": "default", "last_round": "last_round", "all": "all"}
_OLD_NAMES = {"last_round_with_ignore_empty_think": "last_round+ignore_empty_think"}

__all__ = ["LossScale", "list_loss_scales", "parse_loss_scale"]


@dataclass(frozen=True, slots=True)
class LossScale:
    """A base and its rules.

    Args:
        name: canonical name, as written into settings; of files only their own name.
        base: default: every answer; last_round: answers after the last question; all: every token.
        rules: weights inside an answer.
        maps: contents of the files in the name, so that settings need no file.
    """

    name: str
    base: Base
    rules: tuple[Rule, ...]
    maps: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> str | dict[str, Any]:
        """What `parse_loss_scale` needs to build this loss scale again, anywhere."""
        return {"name": self.name, "maps": dict(self.maps)} if self.maps else self.name

    def runs(self, text: str, query: str = "") -> list[Run]:
        """Return the weighted runs of one answer's text; their lengths add up to the text's.

        Args:
            text: the answer, or a part of it.
            query: the question it answers.
        """
        runs: list[Run] = [(len(text), 1.0)]
        for rule in self.rules:
            runs = [
                (length, outer * inner)
                for start, stop, outer in _positions(runs)
                for length, inner in rule.runs(text[start:stop], query)
            ]
        return [run for run in runs if run[0]]


def list_loss_scales() -> list[str]:
    """Return the names of all bases and rules."""
    return [*_BASES, *sorted(RULES)]


def parse_loss_scale(given: str | Mapping[str, Any]) -> LossScale:
    """Read a loss scale's name, or what `LossScale.settings` returned.

    Raises:
        UsageError: a part of it is unknown, two bases are named, or a file can't be used.
    """
    name, known = (given, {}) if isinstance(given, str) else (given["name"], given["maps"])
    base: Base | None = None
    rules: list[Rule] = []
    parts: list[str] = []
    maps: dict[str, Any] = {}
    for part in "+".join(_OLD_NAMES.get(part, part) for part in name.split("+")).split("+"):
        if part in _BASES and base is None:
            base = _BASES[part]
        elif part in RULES:
            rules.append(RULES[part])
        elif is_map_file(part):
            value = known[part] if part in known else read_map(part)
            part = Path(part).name
            if maps.setdefault(part, value) != value:
                raise _same_name(part)
            rules.append(rule_of_map(value, part))
        else:
            raise unknown_name("loss scale", part, list_loss_scales())
        parts.append(part)
    return LossScale("+".join(parts), base or "default", tuple(rules), maps)


def _same_name(name: str) -> UsageError:
    return UsageError(
        "two different files of a loss scale have the same name",
        where="template.loss_scale",
        found=name,
        expected="files that their names tell apart",
        do="rename one of them",
    )


def _positions(runs: list[Run]) -> list[tuple[int, int, float]]:
    positions: list[tuple[int, int, float]] = []
    start = 0
    for length, weight in runs:
        positions.append((start, start + length, weight))
        start += length
    return positions
