"""Read a recipe file: all problems are collected and reported at once, each with its line.

Paths inside a recipe are relative to the working directory, as on the command line.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from swiftcore.errors import RecipeError
from swiftcore.recipe.problems import Keys, Problems, explain
from swiftcore.recipe.runtime import Runtime
from swiftcore.recipe.sections import Recipe, TunerSection
from swiftcore.recipe.tasks import compares_processes
from swiftcore.recipe.yaml_text import parse_mapping, parse_value

_M = TypeVar("_M", bound=BaseModel)
_MAX_LETTERS = 1 << 20
_TUNER_FIELDS = set(TunerSection.model_fields)


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, the runtime that came with it, and where both were written."""

    recipe: Recipe
    runtime: Runtime
    path: Path
    overrides: tuple[str, ...] = ()


def load_recipe(path: Path | str, overrides: Iterable[str] = ()) -> LoadedRecipe:
    """Read, override and validate a recipe.

    Args:
        path: a YAML file.
        overrides: `section.field=value` texts; the value is read as YAML.

    Raises:
        RecipeError: the file is missing, is no YAML, or has wrong names or values.
    """
    path, overrides = Path(path), tuple(overrides)
    problems = Problems(path)
    values = parse_mapping(_read(path), path, problems)
    _refuse_empty_sections(values, problems)
    values = _move_tuner_fields(values, problems)
    for text in overrides:
        values = _override(values, text, problems)
    return build_recipe(values, path=path, problems=problems, overrides=overrides)


def build_recipe(
    values: dict[str, Any],
    *,
    path: Path = Path("flags"),
    problems: Problems | None = None,
    overrides: tuple[str, ...] = (),
) -> LoadedRecipe:
    """Validate nested recipe values that were read from a file or from flags.

    Args:
        values: section -> field -> value.
        path: where they come from; its stem is the default name.
        problems: what reading them has already found.
        overrides: kept for the result.

    Raises:
        RecipeError: wrong names or values; all of them are listed.
    """
    problems = problems or Problems(path)
    values = _move_tuner_fields({"name": path.stem, **values}, problems)
    runtime_values = values.pop("runtime", {})
    recipe = _validate(Recipe, values, (), problems)
    runtime = _validate(Runtime, runtime_values, ("runtime",), problems)
    problems.raise_if_any()
    assert recipe is not None
    assert runtime is not None
    return LoadedRecipe(_counted_for(recipe, runtime), runtime, path, overrides)


def read_section(model: type[_M], values: dict[str, Any], name: str) -> _M:
    """Validate one section that stands alone, without a recipe around it.

    Raises:
        RecipeError: wrong names or values; all of them are listed.
    """
    problems = Problems(Path("flags"))
    found = _validate(model, values, (name,), problems)
    problems.raise_if_any()
    assert found is not None
    return found


def _counted_for(recipe: Recipe, runtime: Runtime) -> Recipe:
    """Write the number of processes into the recipe where it changes what a step is made of."""
    train = recipe.train
    num_processes = runtime.processes().readers(train.sequence_parallel_size)
    same_step = train.rows_a_step(num_processes) == train.rows_a_step(1)
    same_step &= num_processes == 1 or not compares_processes(recipe.model.task, train)
    if same_step or train.data_parallel_size is not None:
        return recipe
    train = train.model_copy(update={"data_parallel_size": num_processes})
    return recipe.model_copy(update={"train": train})


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(_MAX_LETTERS + 1)
    except FileNotFoundError as err:
        raise _no_file(path) from err
    except (OSError, ValueError) as err:
        raise RecipeError(
            "The recipe file can't be read.",
            where=path,
            found=f"{type(err).__name__}: {err}",
            expected="a UTF-8 text file",
            do="check the path and its permissions",
        ) from err
    if len(text) > _MAX_LETTERS:
        raise RecipeError(
            "The recipe file is too large to be a recipe.",
            where=path,
            found=f"more than {_MAX_LETTERS} letters",
            expected="some lines of YAML",
            do="give a recipe such as recipes/demo.yaml",
        )
    return text


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


def _refuse_empty_sections(values: dict[str, Any], problems: Problems) -> None:
    """Report `merge:` with nothing after it: it looks like a stage that runs, and would be none."""
    for key, value in values.items():
        if value is None:
            problems.add((str(key),), "empty; write {} for its defaults, or remove the line")


def _override(values: dict[str, Any], text: str, problems: Problems) -> dict[str, Any]:
    """Return the values with one `section.field=value` applied."""
    name, equals, raw = text.partition("=")
    keys = tuple(part.strip() for part in name.split("."))
    if not equals or not all(keys):
        problems.found.append(f"--set {text}: write --set section.field=value")
        return values
    keys = _home_of(keys)
    problems.places[keys] = f"--set {text}"
    return _with(values, keys, parse_value(raw), problems)


def _with(values: dict[str, Any], keys: Keys, value: Any, problems: Problems) -> dict[str, Any]:
    """Return a copy of `values` that holds `value` at `keys`."""
    if len(keys) == 1:
        return {**values, keys[0]: value}
    inner = values.get(keys[0])
    if inner is not None and not isinstance(inner, dict):
        problems.add(keys, f"{keys[0]} is not a section")
        return values
    return {**values, keys[0]: _with(inner or {}, keys[1:], value, problems)}


def _home_of(keys: Keys) -> Keys:
    """Let a tuner's field be written under train: `train.lora_rank` is `tuner.lora_rank`."""
    if len(keys) == 2 and keys[0] == "train" and keys[1] in _TUNER_FIELDS:
        return ("tuner", keys[1])
    return keys


def _move_tuner_fields(values: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """Return the values with the tuner's fields that stand under train moved to their section."""
    train, tuner = values.get("train"), values.get("tuner", {})
    if not isinstance(train, dict) or not isinstance(tuner, dict):
        return values
    moved = {key: value for key, value in train.items() if key in _TUNER_FIELDS}
    for key, value in moved.items():
        if key in tuner and tuner[key] != value:
            problems.add(("train", key), f"also written as tuner.{key} with another value")
        if ("train", key) in problems.places:
            problems.places["tuner", key] = problems.places["train", key]
    if not moved:
        return values
    rest = {key: value for key, value in train.items() if key not in moved}
    return {**values, "train": rest, "tuner": {**tuner, **moved}}


def _validate(model: type[_M], values: Any, prefix: Keys, problems: Problems) -> _M | None:
    try:
        return model.model_validate(values)
    except ValidationError as err:
        for issue in err.errors(include_url=False):
            keys = (*prefix, *(str(part) for part in issue["loc"]))
            problems.add(keys, explain(model, issue))
        return None
