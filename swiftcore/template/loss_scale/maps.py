"""Loss scales of one's own: a YAML or JSON file that maps texts to weights.

    response:
      "Action:": [2, 2]          # a keyword's weight, and that of the text behind it
      "Observation:": [2, 0]
    query:
      "Which tool is next?": 3   # the whole answer to such a question

One number instead of two makes the key a regular expression, whose matches get that weight; a map
has keywords or expressions, not both. A file without `response` and `query` is the response map.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.template.loss_scale.rules import KeywordRule, PatternRule, QueryRule, Rule

_SUFFIXES = (".yaml", ".yml", ".json")
_SECTIONS = {"response", "query"}


def is_map_file(part: str) -> bool:
    """Say whether a part of a loss scale's name is a file."""
    return part.endswith(_SUFFIXES)


def read_map(part: str) -> dict[str, Any]:
    """Return the contents of a map file.

    Raises:
        UsageError: it can't be read; the message names file and key.
    """
    path = Path(part)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise _bad("a loss scale's file can't be read", part, err, "a YAML or JSON file") from err
    try:
        value = json.loads(text) if part.endswith(".json") else _yaml(text)
    except ValueError as err:
        raise _bad("a loss scale's file is broken", part, err, "valid YAML or JSON") from err
    if not isinstance(value, dict) or not value:
        raise _bad("a loss scale's file holds no map", part, value, "texts and their weights")
    rule_of_map(value, part)
    return value


def rule_of_map(value: Mapping[str, Any], where: str) -> Rule:
    """Return the rule of a map.

    Raises:
        UsageError: a key or weight is none; the message names file and key.
    """
    sections = value if value.keys() & _SECTIONS else {"response": value}
    unknown = sorted(str(key) for key in sections.keys() - _SECTIONS)
    if unknown:
        raise _bad(
            "a loss scale's file has unknown keys", where, ", ".join(unknown), "response, query"
        )
    rule = _response(_section(sections, "response", where), f"{where}: response")
    asked = _section(sections, "query", where)
    if not asked:
        return rule
    weights = {
        _key(key, f"{where}: query"): _weights(weight, f"{where}: query: {key}", (1,))[0]
        for key, weight in asked.items()
    }
    return QueryRule(weights, rule)


def _response(section: Mapping[Any, Any], where: str) -> Rule:
    read = {
        _key(key, where): _weights(weights, f"{where}: {key}", (1, 2))
        for key, weights in section.items()
    }
    pairs = {key: (one[0], one[1]) for key, one in read.items() if len(one) == 2}
    if pairs and len(pairs) < len(read):
        single = next(key for key in read if key not in pairs)
        raise _bad(
            "a loss scale's file mixes keywords and expressions",
            f"{where}: {single}",
            "one weight beside keys with two",
            "two weights for each keyword, or one for each expression",
        )
    if pairs:
        return KeywordRule(pairs)
    for source in read:
        try:
            re.compile(source)
        except re.error as err:
            raise _bad(
                "a key with one weight is no regular expression", f"{where}: {source}", err, "one"
            ) from err
    return PatternRule({source: weights[0] for source, weights in read.items()})


def _section(sections: Mapping[Any, Any], name: str, where: str) -> Mapping[Any, Any]:
    section = sections.get(name) or {}
    if not isinstance(section, Mapping):
        raise _bad("a section is no map", f"{where}: {name}", section, "texts and their weights")
    return section


def _key(key: object, where: str) -> str:
    if not isinstance(key, str) or not key:
        raise _bad("a key is no text", where, key, "a text in quotation marks")
    return key


def _weights(value: object, where: str, lengths: tuple[int, ...]) -> list[float]:
    weights = list(value) if isinstance(value, list | tuple) else [value]
    fits = len(weights) in lengths and all(
        isinstance(one, int | float)
        and not isinstance(one, bool)
        and math.isfinite(one)
        and one >= 0
        for one in weights
    )
    if not fits:
        expected = " or ".join(f"{n} number{'s' * (n > 1)} of at least 0" for n in lengths)
        raise _bad("a weight is none", where, value, expected)
    return [float(one) for one in weights]  # pyright: ignore[reportArgumentType]


def _yaml(text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ValueError(str(err)) from err


def _bad(message: str, where: str, found: object, expected: str) -> UsageError:
    return UsageError(
        message,
        where=where,
        found=str(found)[:200],
        expected=expected,
        do="mend the file that template.loss_scale names",
    )
