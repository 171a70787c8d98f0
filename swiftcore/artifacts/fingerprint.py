"""Identity of an artifact: what was asked for and what it was made from, never where.

A fingerprint is sha256 over canonical JSON of the stage's name and version, the recipe fields that
shape its result, and the content digests of its inputs. Fields that still have their default are
left out, so a release that adds a field keeps every old artifact; a release that changes what a
default means raises the stage version.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pydantic import BaseModel

from swiftcore.errors import UsageError

FINGERPRINT_SCHEME = 1
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class InputRef:
    """One input of a stage.

    Args:
        digest: sha256 of the content; the only part that enters a fingerprint.
        fingerprint: of the artifact it came from, or None for a file or folder of the user's.
        label: what a person calls it, such as `train/demo` or `gsm8k.jsonl`.
    """

    digest: str
    fingerprint: str | None = None
    label: str = ""


@dataclass(frozen=True)
class Identity:
    """All that decides what a stage will make.

    Raises:
        UsageError: stage or name can't be the name of a folder.
    """

    stage: str
    version: int
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, InputRef] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role, text in (("stage", self.stage), ("name", self.name)):
            if not _FOLDER_NAME.fullmatch(text):
                raise UsageError(
                    f"An artifact can't have this {role}.",
                    where=role,
                    found=repr(text),
                    expected="letters, digits, dots, dashes and underscores, the first no sign",
                    do="choose another name",
                )

    @property
    def fingerprint(self) -> str:
        """Return the sha256 hex of this identity; `name` is a label and takes no part."""
        document = {
            "scheme": FINGERPRINT_SCHEME,
            "stage": self.stage,
            "version": self.version,
            "config": self.config,
            "inputs": {role: ref.digest for role, ref in self.inputs.items()},
        }
        return sha256_text(canonical_json(document, self.stage))


def sha256_text(text: str) -> str:
    """Return the sha256 hex of a string's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def canonical_json(value: object, where: str = "value") -> str:
    """Serialise a value the same way in every process and on every machine.

    Raises:
        UsageError: a value has no stable form (a path, a set, NaN, an object); names the field.
    """
    return json.dumps(
        _stable(value, where), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


def section_config(section: BaseModel, *, exclude: set[str] | None = None) -> dict[str, Any]:
    """Return the fields of a recipe section that differ from their defaults."""
    return section.model_dump(exclude_defaults=True, exclude=exclude)


def _stable(value: object, where: str) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Enum):
        return _stable(value.value, where)
    if isinstance(value, str):
        return _stable_text(value, where)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _unstable(value, where, "a finite number")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise _unstable(key, where, "text keys")
            _stable_text(key, where)
        return {key: _stable(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_stable(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise _unstable(value, where, "null, true/false, a number, text, a list or a mapping")


def _stable_text(value: str, where: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as err:  # a lone surrogate, as undecodable file names hold them
        raise _unstable(value, where, "text that is valid Unicode") from err
    return value


def _unstable(value: object, where: str, expected: str) -> UsageError:
    return UsageError(
        "A value has no stable form, so no fingerprint can be made from it.",
        where=where,
        found=f"{type(value).__name__} {value!r}",
        expected=expected,
        do="give the content (or its digest) instead of the object; places belong in Runtime",
    )
