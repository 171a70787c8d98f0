"""What is wrong with a recipe: collected first, then raised once, each problem with its place."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from swiftcore.errors import RecipeError
from swiftcore.recipe.catalogue import model_inside
from swiftcore.recipe.sections import Recipe, TrainSection, TunerSection

Keys = tuple[str, ...]


@dataclass
class Problems:
    """Everything wrong with one recipe.

    Args:
        path: the recipe file.
        places: where each key was written: `file:line`, or the `--set` that brought it.
        found: the problems so far, one line each.
    """

    path: Path
    places: dict[Keys, str] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def add(self, keys: Keys, text: str) -> None:
        """Note a problem of the value at `keys`; an unknown place falls back to its section's."""
        known = keys
        while known and known not in self.places:
            known = known[:-1]
        place = self.places.get(known, str(self.path))
        self.found.append(f"{place}: {'.'.join(keys) or 'recipe'}: {text}")

    def raise_if_any(self) -> None:
        """Raise all problems at once.

        Raises:
            RecipeError: there is at least one.
        """
        if not self.found:
            return
        count = len(self.found)
        raise RecipeError(
            "The recipe has a problem." if count == 1 else f"The recipe has {count} problems.",
            where=self.path,
            found="\n".join(self.found),
            expected="sections model, data, template, tuner, train, merge, quantize, evaluate, "
            "deploy and runtime",
            do="mend the lines above; swift args lists every name, its type and its default",
        )


def explain(model: type[BaseModel], issue: Mapping[str, Any]) -> str:
    """Put one of pydantic's findings into words, with the nearest legal name for a misspelt one."""
    kind, location = issue["type"], [str(part) for part in issue["loc"]]
    if kind == "extra_forbidden":
        legal = _legal_names(model, location[:-1])
        near = difflib.get_close_matches(location[-1], legal, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"legal names: {', '.join(legal)}"
        return f"no such name; {hint}"
    if kind == "missing":
        return "missing; it has no default"
    if kind == "string_pattern_mismatch":
        return f"use letters, digits, dots, dashes and underscores; found {issue['input']!r}"
    message = str(issue["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return message
    return f"{message[:1].lower()}{message[1:]}; found {issue.get('input')!r:.200}"


def _legal_names(model: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        field_info = model.model_fields.get(part)
        inner = model_inside(field_info.annotation) if field_info else None
        if inner is None:
            return []
        model = inner
    names = list(model.model_fields)
    if model is TrainSection:
        names += sorted(TunerSection.model_fields)
    return [*names, "runtime"] if model is Recipe else names
