"""Families that the user brings: a YAML file of their texts, or a Python file that registers them.

A YAML file maps names to the fields of `ChatTemplate`; `base` names a family to start from:

    my_chat:
      base: chatml
      default_system: You are terse.

A Python file calls `register_template`. It runs code, so only a file that the caller names is read.
What either registers is known to that caller alone; the settings of an encoded dataset and of a
model carry the whole definition, so that nobody needs the file again.
"""

import difflib
import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from swiftcore.errors import UsageError
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.registry import JINJA, collect_registered, find_definition, list_templates

_BASE = "base"
_FIELDS = tuple(field.name for field in fields(ChatTemplate))
_REQUIRED = ("prompt", "chat_sep", "suffix")
_TYPES = get_type_hints(ChatTemplate)
_PLACEHOLDER = re.compile(r"\{\{(?P<name>[^{}:]*)(?::[^{}]*)?\}\}")
_PLACEHOLDERS = ("SYSTEM", "QUERY", "ROUND0", "ROUND1", "BOS", "EOS", "ID", "TOKEN", "TODAY")
_NEEDED = {
    "prompt": ("QUERY",),
    "system_prefix": ("SYSTEM",),
    "system_prompt": ("SYSTEM", "QUERY"),
}
_TEXTS = ("prefix", "system_prefix", "prompt", "system_prompt", "chat_sep", "suffix")


def read_template_files(paths: Sequence[str | Path]) -> dict[str, ChatTemplate]:
    """Return the families that YAML and Python files define, by name.

    Raises:
        UsageError: a file can't be read, fails or defines nothing, a field has another name or
            kind, or a name is taken; the message names file and field.
    """
    found: dict[str, ChatTemplate] = {}
    for path in (Path(item).expanduser() for item in paths):
        for definition in _read_file(path):
            if definition.name in found or definition.name in (*list_templates(), JINJA):
                raise UsageError(
                    "the name of a template is taken",
                    where=path,
                    found=definition.name,
                    expected="a name that no other template has",
                    do="give it another name",
                )
            found[definition.name] = definition
    return found


def chosen_custom(template: str | None, paths: Sequence[str | Path]) -> ChatTemplate | None:
    """Return the family of a recipe's files that the recipe uses; None if it names no files.

    Raises:
        UsageError: the files can't be read, or the recipe does not use what they define.
    """
    if not paths:
        return None
    found = read_template_files(paths)
    name = template if template is not None else next(iter(found)) if len(found) == 1 else ""
    if name not in found:
        raise UsageError(
            "the files register templates, and the recipe uses none of them",
            where="template.template",
            found=template,
            expected="one of " + ", ".join(sorted(found)),
            do="set template.template to one of these, or remove template.custom_template",
        )
    return found[name]


def definition_from(values: Mapping[str, Any], where: str) -> ChatTemplate:
    """Build a definition from plain values, as settings and YAML files hold them.

    Raises:
        UsageError: a field is unknown, missing, or of another kind.
    """
    given = dict(values)
    base = given.pop(_BASE, None)
    known = asdict(find_definition(base)) if isinstance(base, str) else {}
    if base is not None and not known:
        raise _wrong("a base is no name", f"{where}.{_BASE}", base, "name of a template")
    for name in given:
        if name not in _FIELDS:
            near = difflib.get_close_matches(str(name), [*_FIELDS, _BASE], n=1, cutoff=0.5)
            raise UsageError(
                "a template has no such field",
                where=f"{where}.{name}",
                found=name,
                expected=near[0] if near else ", ".join([_BASE, *_FIELDS]),
                do=f"write {near[0]}" if near else "remove it",
            )
    missing = [name for name in _REQUIRED if name not in given and not known]
    if missing:
        raise _wrong(
            "a template lacks a field",
            where,
            f"no {', '.join(missing)}",
            f"{', '.join(_REQUIRED)}, or {_BASE}: name of a template to start from",
        )
    checked = {name: _of_kind(value, name, where) for name, value in given.items()}
    definition = ChatTemplate(**{**_frozen(known), **checked})
    _check_placeholders(definition, where)
    return definition


def _read_file(path: Path) -> list[ChatTemplate]:
    if path.suffix == ".py":
        definitions = _run(path)
        for definition in definitions:
            _check_placeholders(definition, f"{path}: {definition.name}")
    elif path.suffix in (".yaml", ".yml"):
        definitions = _from_yaml(path)
    else:
        raise _wrong("this file can't register templates", str(path), path.suffix, ".yaml or .py")
    if not definitions:
        raise _wrong("a file registers no template", str(path), "nothing", "at least one template")
    return definitions


def _run(path: Path) -> list[ChatTemplate]:
    with collect_registered() as registered:
        try:
            runpy.run_path(str(path))
        except UsageError:
            raise
        except (Exception, SystemExit) as err:
            raise UsageError(
                "a file that registers templates failed",
                where=path,
                found=f"{type(err).__name__}: {err}",
                expected="a Python file that calls swiftcore.template.register_template",
                do="mend the file",
            ) from err
    return list(registered.values())


def _from_yaml(path: Path) -> list[ChatTemplate]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise _wrong(
            "a file of templates can't be read", str(path), str(err), "a YAML mapping"
        ) from err
    if not isinstance(values, dict):
        raise _wrong(
            "a file of templates is no mapping", str(path), type(values).__name__, "name: fields"
        )
    pairs: list[Any] = node.value if node is not None else []
    lines = {key.value: key.start_mark.line + 1 for key, _ in pairs}
    definitions: list[ChatTemplate] = []
    for name, given in values.items():
        where = f"{path}:{lines.get(name, 1)}: {name}"
        if not isinstance(given, dict):
            raise _wrong("a template is no mapping", where, given, "field: value")
        definitions.append(definition_from({**given, "name": str(name)}, where))
    return definitions


def _of_kind(value: Any, name: str, where: str) -> Any:
    kind = _TYPES[name]
    if get_origin(kind) is UnionType and value is None:
        return None
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    for each in kinds:
        if each in (str, bool) and isinstance(value, each):
            return value
        if get_origin(each) is Literal and value in get_args(each):
            return value
        if get_origin(each) is tuple and _is_texts(value, each):
            return tuple(value)
    expected = " or ".join(_kind_name(each) for each in kinds)
    raise _wrong("a field of a template is of another kind", f"{where}.{name}", value, expected)


def _is_texts(value: Any, kind: Any) -> bool:
    length = None if Ellipsis in get_args(kind) else len(get_args(kind))
    return (
        isinstance(value, list | tuple)
        and all(isinstance(item, str) for item in value)
        and length in (None, len(value))
    )


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of texts" if Ellipsis in get_args(kind) else "a pair of texts"
    return {str: "text", bool: "true or false"}.get(kind, "null")


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}


def _check_placeholders(definition: ChatTemplate, where: str) -> None:
    for name in _TEXTS:
        text = getattr(definition, name)
        if text is None:
            continue
        found = [match["name"] for match in _PLACEHOLDER.finditer(text)]
        for placeholder in found:
            if placeholder not in _PLACEHOLDERS:
                near = difflib.get_close_matches(placeholder.upper(), _PLACEHOLDERS, n=1)
                raise _wrong(
                    "a text has a placeholder that nothing fills",
                    f"{where}.{name}",
                    f"{{{{{placeholder}}}}}",
                    "{{" + (near[0] if near else "}}, {{".join(_PLACEHOLDERS)) + "}}",
                )
        for needed in _NEEDED.get(name, ()):
            if needed not in found:
                raise _wrong(
                    "a text lacks its placeholder", f"{where}.{name}", text, f"{{{{{needed}}}}}"
                )
    if not definition.suffix:
        raise _wrong(
            "a template has no suffix", f"{where}.suffix", "''", "text that ends an answer"
        )


def _wrong(message: str, where: str, found: Any, expected: str) -> UsageError:
    return UsageError(
        message, where=where, found=str(found)[:200], expected=expected, do="correct the file"
    )
