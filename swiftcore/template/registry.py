"""Template names to definitions."""

import contextlib
import difflib
from collections.abc import Iterator
from contextvars import ContextVar

from swiftcore.errors import UsageError
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.families import FAMILIES

JINJA = "jinja"
"""Name that stands for the tokenizer's own chat template."""

_BUILT_IN: dict[str, ChatTemplate] = {family.name: family for family in FAMILIES}
_DEFINITIONS: dict[str, ChatTemplate] = dict(_BUILT_IN)
_collected: ContextVar[dict[str, ChatTemplate] | None] = ContextVar("collected", default=None)


def list_templates() -> list[str]:
    """Return all names that `get_template` accepts, sorted."""
    return sorted([*_DEFINITIONS, JINJA])


def is_built_in(definition: ChatTemplate) -> bool:
    """Tell whether the definition is one of this library's, to the letter."""
    return _BUILT_IN.get(definition.name) == definition


@contextlib.contextmanager
def collect_registered() -> Iterator[dict[str, ChatTemplate]]:
    """Gather what `register_template` is given inside the block, instead of adding it."""
    gathered: dict[str, ChatTemplate] = {}
    token = _collected.set(gathered)
    try:
        yield gathered
    finally:
        _collected.reset(token)


def register_template(definition: ChatTemplate) -> None:
    """Add a family to this process, or to the recipe whose file is being read.

    Raises:
        UsageError: the name is taken by another definition.
    """
    known = _collected.get()
    definitions = _DEFINITIONS if known is None else known
    taken = _DEFINITIONS.get(definition.name) or definitions.get(definition.name)
    if definition.name == JINJA or (taken is not None and taken != definition):
        raise UsageError(
            f"a template named {definition.name!r} is registered already",
            where="register_template",
            found=definition.name,
            expected="a name not in list_templates()",
            do="choose another name",
        )
    definitions[definition.name] = definition


def find_definition(name: str) -> ChatTemplate:
    """Return the definition called `name`.

    Raises:
        UsageError: there is none; the message names the nearest ones.
    """
    if name in _DEFINITIONS:
        return _DEFINITIONS[name]
    raise unknown_name("template", name, list_templates())


def unknown_name(kind: str, name: object, known: list[str]) -> UsageError:
    """Build the error for a name nobody registered, with the nearest legal ones."""
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    return UsageError(
        f"there is no {kind} named {name!r}",
        where=kind,
        found=name,
        expected="one of " + ", ".join(near or known),
        do=f"use {near[0]!r}" if near else f"choose one of the {len(known)} names",
    )
