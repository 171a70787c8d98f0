"""Read YAML 1.2 with the line of every key.

PyYAML reads YAML 1.1, where `no` is false, `1e-4` is text and `12:30` is a number. Values here are
read by the core rules of 1.2, as DVC reads the same file: only true and false are truth values.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from swiftcore.errors import RecipeError
from swiftcore.recipe.problems import Keys, Problems


class _CoreLoader(yaml.SafeLoader):
    """The safe loader with the implicit types of the YAML 1.2 core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _CoreLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(rf"(?:{_pattern})\Z"),
        [letter if letter != "\0" else "" for letter in _first],
    )


def parse_value(text: str) -> Any:
    """Return the value that a short text such as `16`, `[a, b]` or `true` means in YAML."""
    try:
        return yaml.load(text, Loader=_CoreLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def parse_mapping(text: str, path: Path, problems: Problems) -> dict[str, Any]:
    """Return a recipe's nested values and note the place of each key in `problems`.

    Raises:
        RecipeError: the text is no YAML, or no mapping.
    """
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
        values = yaml.load(text, Loader=_CoreLoader)
        _note_places(node, (), problems, set())
    except (yaml.YAMLError, ValueError, RecursionError) as err:
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
            found="nothing" if values is None else type(values).__name__,
            expected="a mapping of sections",
            do="start from recipes/demo.yaml",
        )
    return values


def _note_places(node: yaml.Node | None, keys: Keys, problems: Problems, seen: set[int]) -> None:
    """Remember where every key is, and report keys written twice, of which YAML keeps the last.

    Args:
        node: what was parsed.
        keys: of the mapping that holds the node.
        problems: takes the places.
        seen: nodes already visited; aliases can name one node millions of times.
    """
    if not isinstance(node, yaml.MappingNode) or id(node) in seen:
        return
    seen.add(id(node))
    for key_node, value_node in node.value:
        name = str(key_node.value)
        below = (*keys, name)
        again = below in problems.places
        problems.places[below] = f"{problems.path}:{key_node.start_mark.line + 1}"
        if again:
            problems.add(below, "written twice; keep one")
        _note_places(value_node, below, problems, seen)
