"""Values that stand in a text without quotes: a string as it is, everything else as JSON.

Such a text does not tell the string "21" from the number 21. With the tool's JSON schema the
declared type decides; without it, a text that is JSON and no string is read as that value.
"""

import json
from collections.abc import Mapping
from typing import Any

from swiftcore.template.agents.json_calls import dump_json

_PYTHON = {"True": True, "False": False, "None": None}


def write_value(value: object) -> str:
    """Write a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else dump_json(value)


def read_value(text: str, schema: object) -> object:
    """Read what `write_value` wrote.

    Args:
        text: the characters.
        schema: JSON schema of the value; None where nothing is known.
    """
    types = _types(schema)
    if types == {"string"}:
        return text
    if types and "string" not in types and text.strip() in _PYTHON:
        # Some published templates print booleans as Python does, and models learnt it.
        return _PYTHON[text.strip()]
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, str):
        # A JSON string only where no text may stand: otherwise the quotes are part of the text.
        return value if types and "string" not in types else text
    if types and "string" in types and not _fits(value, types):
        return text
    return value


def property_schema(parameters: object, name: str) -> object:
    """Return the schema of one argument; None where the tool does not declare it."""
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return properties.get(name) if isinstance(properties, Mapping) else None


def _types(schema: object) -> set[str]:
    """Return the JSON types a schema allows; empty where it does not say."""
    if not isinstance(schema, Mapping):
        return set()
    declared = schema.get("type")
    if isinstance(declared, str):
        return {declared}
    if isinstance(declared, list):
        return {name for name in declared if isinstance(name, str)}
    for key in ("anyOf", "oneOf"):
        variants = schema.get(key)
        if isinstance(variants, list):
            found = [_types(variant) for variant in variants]
            return set[str]().union(*found) if all(found) else set()
    allowed = schema.get("enum")
    if isinstance(allowed, list) and allowed and all(isinstance(value, str) for value in allowed):
        return {"string"}
    return set()


def _fits(value: Any, types: set[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int):
        return bool({"integer", "number"} & types)
    if isinstance(value, float):
        return "number" in types
    if value is None:
        return "null" in types
    return ("object" if isinstance(value, dict) else "array") in types


def _refuse(constant: str) -> object:
    raise ValueError(constant)
