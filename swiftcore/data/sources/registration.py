"""The facts about a registered dataset, checked: a place, names of columns and keys, parts."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256 as sha256_of
from pathlib import Path

from swiftcore.data.sources.row_options import RowOptions
from swiftcore.errors import UsageError

_ALIASES = {"dataset_name": "name", "dataset_path": "path", "hf": "hf_dataset_id"}
_ALIASES |= {"ms": "ms_dataset_id", "subset": "name"}
_KEYS = {
    *("name", "path", "hf_dataset_id", "ms_dataset_id", "columns", "messages", "subsets", "split"),
    *("column_names", "tags", "help", "huge_dataset", "is_weak_subset"),
}
_MESSAGE_KEYS = {
    *("role_key", "content_key", "inner_key", "user_role", "assistant_role", "system_role"),
}


@dataclass(frozen=True)
class Subset:
    """A part of a registered dataset, with what it reads differently.

    Args:
        name: the subset.
        columns: renamed before the dataset's own columns.
        is_weak: left out when all subsets are asked for.
    """

    name: str
    columns: dict[str, str] = field(default_factory=dict)
    is_weak: bool = False


@dataclass(frozen=True)
class RegisteredDataset:
    """A dataset under a name.

    Args:
        name: what an entry of `data.dataset` calls it.
        path: local path or address; None for one on a hub only.
        hf_dataset_id: `org/name` on Hugging Face.
        ms_dataset_id: `org/name` on ModelScope.
        options: how its rows are read.
        subsets: its parts; none means it has no named parts.
        split: splits of a hub dataset to take; none takes the one that fits the role.
        origin: file that registered it, and the file's sha256.
    """

    name: str
    path: str | None = None
    hf_dataset_id: str | None = None
    ms_dataset_id: str | None = None
    options: RowOptions = field(default_factory=RowOptions)
    subsets: tuple[Subset, ...] = ()
    split: tuple[str, ...] = ()
    origin: dict[str, str] = field(default_factory=dict)


def dataset_of(facts: Mapping[str, object], file: Path, where: str) -> RegisteredDataset:
    """Return the dataset that an object of a file describes.

    Args:
        facts: the object; keys are those of ms-swift.
        file: the file, whose folder a relative path starts at.
        where: the object, for messages.

    Raises:
        UsageError: a key nothing reads, a value of the wrong kind, or no place.
    """
    found = _checked(facts, _KEYS, where)
    places = ("path", "hf_dataset_id", "ms_dataset_id")
    texts = {key: _text(found.get(key), f"{where}.{key}") for key in ("name", *places)}
    path = texts["path"]
    if path is not None and ":/" not in path and not Path(path).expanduser().is_absolute():
        texts["path"] = str(file.parent / path)
    name = texts["name"] or texts["ms_dataset_id"] or texts["hf_dataset_id"] or path
    if name is None or not any(texts[key] for key in places):
        raise UsageError(
            "a registered dataset has no place",
            where=where,
            expected="one of " + ", ".join(places),
            do="say where its rows are",
        )
    options = RowOptions(
        _names(found.get("columns"), f"{where}.columns"),
        _message_options(found.get("messages"), f"{where}.messages"),
        column_names=checked_names(found.get("column_names"), f"{where}.column_names"),
    )
    digest = sha256_of(file.read_bytes()).hexdigest()
    return RegisteredDataset(
        name,
        texts["path"],
        texts["hf_dataset_id"],
        texts["ms_dataset_id"],
        options,
        tuple(_subset(item, where) for item in _items(found.get("subsets"), where)),
        tuple(str(item) for item in _items(found.get("split"), where)),
        {"registered_by": file.name, "registered_by_sha256": digest},
    )


def checked_names(value: object, where: str) -> tuple[str, ...]:
    """Return names of the columns of files without a header line.

    Raises:
        UsageError: they are no list of names, each once.
    """
    names = tuple(name.strip() if isinstance(name, str) else "" for name in _items(value, where))
    if not all(names) or len({name.lower() for name in names}) < len(names):
        raise UsageError(
            "column names are no names, each once",
            where=where,
            found=value,
            expected="one name for each column of the file",
            do="make up a name for a column that is not needed",
        )
    return names


def _subset(item: object, where: str) -> Subset:
    if isinstance(item, str):
        return Subset(item)
    if not isinstance(item, Mapping):
        raise UsageError("a subset is neither a name nor an object", where=where, found=item)
    found = _checked(item, {"name", "columns", "is_weak_subset"}, f"{where}.subsets")
    name = _text(found.get("name"), f"{where}.subsets") or "default"
    columns = _names(found.get("columns"), f"{where}.subsets")
    return Subset(name, columns, found.get("is_weak_subset") is True)


def _checked(facts: Mapping[str, object], known: set[str], where: str) -> dict[str, object]:
    found = {_ALIASES.get(key, key): value for key, value in facts.items()}
    for key in facts:
        if _ALIASES.get(key, key) not in known:
            close = difflib.get_close_matches(key, sorted(known), n=1)
            raise UsageError(
                "a registered dataset has a key that nothing reads",
                where=where,
                found=key,
                expected=f"perhaps {close[0]}" if close else ", ".join(sorted(known)),
                do="correct or remove the key",
            )
    return found


def _message_options(value: object, where: str) -> dict[str, str | list[str]]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UsageError("messages is no object", where=where, found=value)
    found = _checked(value, _MESSAGE_KEYS, where)
    return {
        key: v if isinstance(v, str) else [str(x) for x in _items(v, where)]
        for key, v in found.items()
    }


def _names(value: object, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
        raise UsageError("columns is no object of names", where=where, found=value)
    return {str(key): str(name) for key, name in value.items()}


def _text(value: object, where: str) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value.strip() if isinstance(value, str) else None
    raise UsageError("a value is no text", where=where, found=value)


def _items(value: object, where: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise UsageError("a value is no list", where=where, found=value)
    return list(value)
