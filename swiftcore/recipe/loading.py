"""Read a recipe file: all problems are collected and reported at once, each with its line.

Paths inside a recipe are relative to the working directory, as on the command line.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from swiftcore.errors import RecipeError
from swiftcore.recipe.runtime import Runtime
from swiftcore.recipe.sections import Recipe, TrainSection, TunerSection

_M = TypeVar("_M", bound=BaseModel)
_MAX_BYTES = 1 << 20
_TUNER_FIELDS = set(TunerSection.model_fields)


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, the runtime that came with it, and where both were written."""

    recipe: Recipe
    runtime: Runtime
    path: Path
    overrides: tuple[str, ...] = ()


@dataclass
class _Problems:
    """Everything wrong with one recipe, with the line of each key that has one."""

    path: Path
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def add(self, keys: tuple[str, ...], text: str) -> None:
        known = keys
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known)
        place = f"{self.path}:{line}" if line else str(self.path)
        self.found.append(f"{place}: {'.'.join(keys) or 'recipe'}: {text}")

    def raise_if_any(self) -> None:
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


def load_recipe(path: Path | str, overrides: Iterable[str] = ()) -> LoadedRecipe:
    """Read, override and validate a recipe.

    Args:
        path: a YAML file.
        overrides: `section.field=value` texts; the value is read as YAML.

    Raises:
        RecipeError: the file is missing, is no YAML, or has wrong names or values.
    """
    path = Path(path)
    problems = _Problems(path)
    values = _read(path, problems)
    overrides = tuple(overrides)
    for text in overrides:
        _apply_override(values, text, problems)
    problems.raise_if_any()
    return build_recipe(values, path=path, problems=problems, overrides=overrides)


def build_recipe(
    values: dict[str, Any],
    *,
    path: Path = Path("flags"),
    problems: _Problems | None = None,
    overrides: tuple[str, ...] = (),
) -> LoadedRecipe:
    """Validate nested recipe values that were read from a file or from flags.

    Raises:
        RecipeError: wrong names or values; all of them are listed.
    """
    problems = problems or _Problems(path)
    values = dict(values)
    values.setdefault("name", path.stem)
    _move_tuner_fields(values, problems)
    runtime_values = values.pop("runtime", None) or {}
    recipe = _validate(Recipe, values, (), problems)
    runtime = _validate(Runtime, runtime_values, ("runtime",), problems)
    problems.raise_if_any()
    assert recipe is not None
    assert runtime is not None
    return LoadedRecipe(recipe, runtime, path, overrides)


def _read(path: Path, problems: _Problems) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecipeError(
                "The recipe file is too large to be a recipe.",
                where=path,
                found=f"{path.stat().st_size} bytes",
                expected=f"at most {_MAX_BYTES} bytes of YAML",
                do="give a recipe such as recipes/demo.yaml",
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise _no_file(path) from err
    except (OSError, UnicodeDecodeError) as err:
        raise RecipeError(
            "The recipe file can't be read.",
            where=path,
            found=f"{type(err).__name__}: {err}",
            expected="a UTF-8 text file",
            do="check the path and its permissions",
        ) from err
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        raise RecipeError(
            "The recipe is not valid YAML.",
            where=f"{path}:{mark.line + 1}" if mark else path,
            found=str(getattr(err, "problem", None) or err),
            expected="a mapping of sections",
            do="mend the line; a value with ': ' or '#' in it needs quotes",
        ) from err
    if not isinstance(values, dict):
        raise RecipeError(
            "The recipe is empty or not a mapping.",
            where=path,
            found=type(values).__name__,
            expected="a mapping of sections",
            do="start from recipes/demo.yaml",
        )
    _note_lines(node, (), problems)
    return values


def _no_file(path: Path) -> RecipeError:
    folder = path.parent if path.parent.is_dir() else Path("recipes")
    names = [p.name for p in sorted(folder.glob("*.yaml"))] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return RecipeError(
        "There is no such recipe.",
        where=path,
        found="no file",
        expected=f"{folder / near[0]}?" if near else f"one of {', '.join(names) or 'your recipes'}",
        do="give the path of a recipe, such as recipes/demo.yaml",
    )


def _note_lines(node: yaml.Node | None, keys: tuple[str, ...], problems: _Problems) -> None:
    """Remember the line of every key, and report keys written twice (YAML keeps the last)."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key_node, value_node in node.value:
        name = str(key_node.value)
        problems.lines[(*keys, name)] = key_node.start_mark.line + 1
        if name in seen:
            problems.add((*keys, name), "written twice; keep one")
        seen.add(name)
        _note_lines(value_node, (*keys, name), problems)


def _apply_override(values: dict[str, Any], text: str, problems: _Problems) -> None:
    name, equals, raw = text.partition("=")
    keys = tuple(part for part in name.strip().split(".") if part)
    if not equals or not keys:
        problems.found.append(f"--set {text}: write --set section.field=value")
        return
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError:
        value = raw
    keys = _home_of(keys)
    target = values
    for key in keys[:-1]:
        inner = target.get(key)
        if inner is None:
            inner = target[key] = {}
        if not isinstance(inner, dict):
            problems.found.append(f"--set {text}: {key} is not a section")
            return
        target = inner
    target[keys[-1]] = value


def _home_of(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Let a tuner's field be written under train: `train.lora_rank` is `tuner.lora_rank`."""
    if len(keys) == 2 and keys[0] == "train" and keys[1] in _TUNER_FIELDS:
        return ("tuner", keys[1])
    return keys


def _move_tuner_fields(values: dict[str, Any], problems: _Problems) -> None:
    train = values.get("train")
    if not isinstance(train, dict):
        return
    moved = {key: value for key, value in train.items() if key in _TUNER_FIELDS}
    if not moved:
        return
    tuner = dict(values.get("tuner") or {})
    for key, value in moved.items():
        if key in tuner and tuner[key] != value:
            problems.add(("train", key), f"also written as tuner.{key} with another value")
        tuner[key] = value
    values["train"] = {key: value for key, value in train.items() if key not in moved}
    values["tuner"] = tuner


def _validate(
    model: type[_M], values: Any, prefix: tuple[str, ...], problems: _Problems
) -> _M | None:
    try:
        return model.model_validate(values)
    except ValidationError as err:
        for issue in err.errors(include_url=False):
            keys = (*prefix, *(str(part) for part in issue["loc"]))
            problems.add(keys, _explain(model, issue))
        return None


def _explain(model: type[BaseModel], issue: Mapping[str, Any]) -> str:
    kind, location = issue["type"], [str(part) for part in issue["loc"]]
    if kind == "extra_forbidden":
        legal = _legal_names(model, location[:-1])
        near = difflib.get_close_matches(location[-1], legal, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"legal names: {', '.join(legal)}"
        return f"no such name; {hint}"
    if kind == "missing":
        return "missing; it has no default"
    message = str(issue["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return message
    return f"{message[:1].lower()}{message[1:]}; found {issue.get('input')!r}"


def _legal_names(model: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        field_info = model.model_fields.get(part)
        inner = _model_inside(field_info.annotation) if field_info else None
        if inner is None:
            return []
        model = inner
    names = list(model.model_fields)
    if model is TrainSection:
        names += sorted(_TUNER_FIELDS)
    return [*names, "runtime"] if model is Recipe else names


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    candidates = getattr(annotation, "__args__", (annotation,))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
