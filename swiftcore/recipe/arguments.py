"""Recipes written as flags: `--model M --dataset A B --train_type lora --lora_rank 8`.

The names are those of the catalogue. Each command looks for a name in its own sections, in their
order, so `--seed` of `swift sft` is `train.seed` and `--quant_method` of `swift export` is
`quantize.quant_method`. Nothing is accepted and ignored: abbreviations, unknown names, names that
do not work yet and names that do not act in this command are errors, all reported at once.
"""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.recipe.catalogue import (
    ALIASES,
    ENVIRONMENT_GROUP,
    Argument,
    find_argument,
    list_arguments,
    reason_elsewhere,
    recipe_fields,
)

__all__ = ["Argument", "find_argument", "list_arguments", "recipe_from_flags"]

_TRAINING = ("model", "data", "template", "tuner", "train")
_COMMAND_SECTIONS = {
    "sft": _TRAINING,
    "pt": _TRAINING,
    "template": _TRAINING,
    "export": ("quantize", "merge", "model", "data", "template"),
    # The same flags as for training on it: max_length is that of rows, not of calibration.
    "export --to-cached-dataset": ("model", "data", "template"),
    "merge-lora": ("merge", "model", "template"),
    "infer": ("infer", "data", "template", "model"),
    "eval": ("evaluate", "model", "template"),
    "deploy": ("deploy", "model", "template"),
    "sample": ("sample", "model", "data", "template"),
}
# What a command means before any flag.
_COMMAND_VALUES: dict[str, dict[str, Any]] = {
    "sft": {"train": {"method": "sft"}},
    "pt": {"train": {"method": "pt"}},
    "merge-lora": {"merge": {}},
    "infer": {"infer": {}},
    "eval": {"evaluate": {}},
    "deploy": {"deploy": {}},
    "sample": {"sample": {}},
}
# Values that ms-swift 4.x renamed.
_VALUE_ALIASES = {("infer_backend", "transformers"): "pt", ("sampler_engine", "transformers"): "pt"}
_TRUE = {"true", "t", "yes", "y", "1"}
_FALSE = {"false", "f", "no", "n", "0"}


@dataclass
class _Reading:
    """Values gathered so far, and everything wrong with the flags."""

    command: str
    values: dict[str, Any]
    seen: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def raise_if_any(self) -> None:
        if not self.problems:
            return
        count = len(self.problems)
        raise UsageError(
            "A flag has a problem." if count == 1 else f"{count} flags have problems.",
            where=f"swift {self.command}",
            found="\n".join(self.problems),
            expected="--name value, with the full names that swift args lists",
            do="mend the flags above; swift args NAME shows type, default and status",
        )


def recipe_from_flags(command: str, flags: Sequence[str]) -> dict[str, Any]:
    """Turn a command's flags into nested recipe values, ready for `build_recipe`.

    Lists are words after one flag or one JSON list; dictionaries are JSON, or the path of a JSON
    file; a bare flag of a bool is true. Ranges and choices are checked by `build_recipe`.

    Raises:
        UsageError: the command takes no recipe flags, or flags are wrong; all are listed.
    """
    command = command.replace("_", "-")
    if command not in _COMMAND_SECTIONS:
        raise UsageError(
            f"swift {command} is not built yet.",
            where=f"swift {command}",
            expected=f"one of {', '.join(_COMMAND_SECTIONS)}",
            do="swift args lists what works",
        )
    start = {name: dict(inner) for name, inner in _COMMAND_VALUES.get(command, {}).items()}
    reading = _Reading(command, start)
    for name, words in _split(flags, reading):
        _take(name, words, reading)
    reading.raise_if_any()
    return reading.values


def _split(flags: Sequence[str], reading: _Reading) -> list[tuple[str, list[str]]]:
    """Group the words after each flag; `--name=value` is one word."""
    groups: list[tuple[str, list[str]]] = []
    for word in flags:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            groups.append((name, [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            reading.problems.append(f"{word}: a value without a flag before it")
    return groups


def _take(written: str, words: list[str], reading: _Reading) -> None:
    name = written.replace("-", "_")
    argument = find_argument(name)
    if argument is None:
        reading.problems.append(f"--{written}: no such argument{_nearest(name)}")
        return
    if argument.group == ENVIRONMENT_GROUP:
        reading.problems.append(f"--{written}: an environment variable, not a flag")
        return
    if not argument.works:
        reading.problems.append(f"--{written}: {argument.status}")
        return
    if reading.seen.setdefault(argument.name, words) is not words:
        if reading.seen[argument.name] != words:
            reading.problems.append(f"--{written}: given twice with different values")
        return
    place = _place(argument, reading.command)
    if place is None:
        why = reason_elsewhere(argument.name)
        reading.problems.append(
            f"--{written}: does not act in swift {reading.command}; "
            f"it sets {' and '.join(argument.acts_in)}{f' ({why})' if why else ''}"
        )
        return
    path, kind = place
    try:
        value = _read(kind, words)
    except ValueError as err:
        reading.problems.append(f"--{written}: {err}")
        return
    if argument.name == "merge_lora":
        _set_merge(value, reading)
        return
    if isinstance(value, str):
        value = _VALUE_ALIASES.get((argument.name, value), value)
    _set(reading, path, value, written)


def _set_merge(wanted: bool, reading: _Reading) -> None:
    """Take `--merge_lora`, which is the presence of the merge section."""
    if wanted:
        reading.values.setdefault("merge", {})
    elif "merge" in reading.values:
        reading.problems.append(f"--merge_lora: swift {reading.command} always merges")


def _place(argument: Argument, command: str) -> tuple[str, str] | None:
    """Return path and type of the field that the command means by this argument."""
    if argument.name == "merge_lora":
        return ("merge", "bool") if "merge" in _COMMAND_SECTIONS[command] else None
    types = {found.path: found.type for flag, found in recipe_fields() if flag == argument.name}
    for section in (*_COMMAND_SECTIONS[command], "runtime"):
        for path, kind in types.items():
            if path.startswith(f"{section}."):
                return path, kind
    return next(((path, kind) for path, kind in types.items() if "." not in path), None)


def _set(reading: _Reading, path: str, value: Any, written: str) -> None:
    *parents, last = path.split(".")
    target = reading.values
    for parent in parents:
        target = target.setdefault(parent, {})
    if path == "train.method" and target.get(last) != value:
        reading.problems.append(f"--{written}: swift {reading.command} sets it already")
        return
    target[last] = value


def _nearest(name: str) -> str:
    known = [argument.name for argument in list_arguments()] + list(ALIASES)
    longer = [other for other in known if other.startswith(name)] if len(name) > 2 else []
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hints = list(dict.fromkeys([*longer[:3], *near]))[:3]
    return f"; did you mean {' or '.join('--' + hint for hint in hints)}?" if hints else ""


def _read(kind: str, words: list[str]) -> Any:
    if kind == "bool":
        return _bool(words)
    if kind == "json":
        return _json_object(" ".join(words))
    if kind.startswith("list["):
        return _list(kind[len("list[") : -1], words)
    if len(words) != 1:
        raise ValueError(f"takes one value, found {len(words)}: {' '.join(words) or 'none'}")
    return _scalar(kind, words[0])


def _bool(words: list[str]) -> bool:
    if not words:
        return True
    word = words[0].lower()
    if len(words) > 1 or word not in _TRUE | _FALSE:
        raise ValueError(f"takes true or false, found {' '.join(words)}")
    return word in _TRUE


def _scalar(kind: str, word: str) -> Any:
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float}
    try:
        return readers.get(kind, str)(word)
    except ValueError:
        raise ValueError(
            f"takes {'a whole' if kind == 'int' else 'a'} number, found {word}"
        ) from None


def _list(kind: str, words: list[str]) -> list[Any]:
    if len(words) == 1 and words[0].lstrip().startswith("["):
        try:
            value = json.loads(words[0])
        except ValueError:
            raise ValueError(f"takes words or a JSON list, found {words[0]}") from None
        return [_scalar(kind, str(part)) for part in value]
    if not words:
        raise ValueError("takes one or more values, found none")
    return [_scalar(kind, word) for word in words]


def _json_object(text: str) -> dict[str, Any]:
    path = Path(text)
    if text.endswith(".json"):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as err:
            raise ValueError(f"can't read {path}: {err.strerror}") from None
    try:
        value = json.loads(text)
    except ValueError as err:
        raise ValueError(f"takes a JSON object, found {text!r} ({err})") from None
    if not isinstance(value, dict):
        raise ValueError(f"takes a JSON object, found {text!r}")
    return value
