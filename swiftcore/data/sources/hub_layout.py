"""Which files of a hub repository are the rows of a subset, split by split.

A `configs:` list in the README's YAML head decides where there is one. Elsewhere the folders are
the subsets, and the names of folders and files tell the splits, as the hub's own viewer reads them.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from swiftcore.data.readers.files import DATA_SUFFIXES, data_suffix
from swiftcore.errors import DataError

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# Facts about the rows, which loaders write beside them.
_METADATA_NAMES = {
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
    *("configuration.json", "croissant.json"),
}
_HEAD = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---", re.DOTALL)
_PATTERN_PART = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|[^*?\[]+|\[")


def choose_files(
    paths: Sequence[str], card: str | None, subset: str | None, where: str
) -> dict[str, list[str]]:
    """Return the paths of each split of a subset, in reading order.

    Args:
        paths: every file of the repository.
        card: text of its README, None when it has none.
        subset: the subset asked for; None takes the only one, or the default.
        where: the dataset, for messages.

    Raises:
        DataError: there is no such subset, one must be named, or no file can be read.
    """
    data = [path for path in sorted(paths) if _is_data(path)]
    configs = _configs(card)
    if not data:
        scripts = [path for path in paths if path.endswith(".py")]
        raise DataError(
            "the dataset has no file that can be read",
            where=where,
            found=", ".join([*scripts, *paths][:8]) or "an empty repository",
            expected="files ending in " + ", ".join(DATA_SUFFIXES),
            do="scripts of a dataset are never run: use its parquet export, often the revision "
            "refs/convert/parquet"
            if scripts
            else "convert the files and give the local folder",
        )
    if configs:
        return _configured(data, configs, subset, where)
    return _by_names(_of_subset(data, subset, where))


def split_of(path: str) -> str | None:
    """Return the split that a path names, by its folders or its file name."""
    for part in reversed(PurePosixPath(path.lower()).parts):
        words = re.split(r"[^a-z]+", part)
        for split, names in _WORDS.items():
            if any(name in words for name in names):
                return split
    return None


def _is_data(path: str) -> bool:
    parts = PurePosixPath(path).parts
    # This also keeps out what would lead out of a folder: "..", and paths from the root.
    hidden = path.startswith("/") or any(part.startswith((".", "__")) for part in parts)
    return not hidden and parts[-1] not in _METADATA_NAMES and data_suffix(Path(path)) is not None


def _configs(card: str | None) -> list[dict[str, object]]:
    import yaml

    head = _HEAD.match(card or "")
    if head is None:
        return []
    try:
        facts = yaml.safe_load(head.group(1))
    except yaml.YAMLError:
        return []
    configs = facts.get("configs") if isinstance(facts, dict) else None
    found = [c for c in configs if isinstance(c, dict)] if isinstance(configs, list) else []
    return [config for config in found if "data_files" in config or "data_dir" in config]


def _configured(
    data: list[str], configs: list[dict[str, object]], subset: str | None, where: str
) -> dict[str, list[str]]:
    named = {str(config.get("config_name", "default")): config for config in configs}
    marked = [config for config in configs if config.get("default") is True]
    default = next(iter(marked), named.get("default"))
    default = default or (configs[0] if len(named) == 1 else None)
    if subset is None and default is not None:
        return _config_files(data, default, where)
    if subset in named:
        return _config_files(data, named[subset], where)
    # No subset has this name, but perhaps a split of the default one.
    splits = _config_files(data, default, where) if default is not None else {}
    if subset in splits:
        return {subset: splits[subset]}
    raise _no_subset(subset, sorted({*named, *splits}), where)


def _config_files(data: list[str], config: dict[str, object], where: str) -> dict[str, list[str]]:
    folder = str(config.get("data_dir") or "").strip("/")
    inside = [path for path in data if path.startswith(f"{folder}/")] if folder else data
    if "data_files" not in config:
        return _by_names(inside)
    found: dict[str, list[str]] = {}
    for split, patterns in _split_patterns(config["data_files"]):
        for pattern in patterns:
            matches = _pattern(f"{folder}/{pattern}" if folder else pattern)
            files = [path for path in inside if matches.fullmatch(path)]
            found.setdefault(split, []).extend(f for f in files if f not in found.get(split, []))
    if not any(found.values()):
        raise DataError(
            "the subset's files are not there, or in no format that is read",
            where=where,
            found=str(config["data_files"])[:300],
            expected="files ending in " + ", ".join(DATA_SUFFIXES),
            do="choose another subset, or fetch and convert the files yourself",
        )
    return {split: files for split, files in found.items() if files}


def _split_patterns(value: object) -> list[tuple[str, list[str]]]:
    if isinstance(value, dict):
        return [(str(split), _texts(paths)) for split, paths in value.items()]
    items = value if isinstance(value, list) else [value]
    of_splits = [item for item in items if isinstance(item, dict)]
    if of_splits:
        return [(str(item.get("split", "train")), _texts(item.get("path"))) for item in of_splits]
    return [("train", _texts(items))]


def _texts(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item.removeprefix("./").lstrip("/") for item in items if isinstance(item, str)]


def _pattern(text: str) -> re.Pattern[str]:
    kinds = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = []
    for part in _PATTERN_PART.findall(text):
        is_class = part.startswith("[") and part.endswith("]")
        parts.append(kinds.get(part) or (part.replace("[!", "[^") if is_class else re.escape(part)))
    try:
        return re.compile("".join(parts))
    except re.error:
        return re.compile(re.escape(text))


def _of_subset(data: list[str], subset: str | None, where: str) -> list[str]:
    """Return the files of a subset where no card names the subsets."""
    bare = {path: path.removeprefix("data/") for path in data}
    folders = sorted(
        {
            short.split("/")[0]
            for short in bare.values()
            if "/" in short and split_of(short.split("/")[0]) is None
        }
    )
    if subset is None:
        loose = [p for p, s in bare.items() if "/" not in s or split_of(s.split("/")[0])]
        if loose and "default" not in folders:
            return loose
        if "default" in folders or len(folders) == 1:
            name = "default" if "default" in folders else folders[0]
            return [path for path, short in bare.items() if short.startswith(f"{name}/")]
        raise _no_subset(None, folders, where)
    chosen = [
        p for p, s in bare.items() if s.startswith(f"{subset}/") or p.startswith(f"{subset}/")
    ]
    chosen = chosen or [p for p in data if PurePosixPath(p).name.split(".")[0] == subset]
    chosen = chosen or [p for p in data if split_of(p) == subset]
    if not chosen:
        raise _no_subset(subset, folders or sorted({p.split(".")[0] for p in data}), where)
    return chosen


def _by_names(files: list[str]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for path in files:
        splits.setdefault(split_of(path) or "", []).append(path)
    unnamed = splits.pop("", [])
    # Files beside named splits belong to none of them; alone, they are the training rows.
    return splits or {"train": unnamed}


def _no_subset(subset: str | None, names: list[str], where: str) -> DataError:
    close = difflib.get_close_matches(subset or "", names, n=1)
    return DataError(
        "the dataset has several subsets, and one must be named"
        if subset is None
        else "the dataset has no such subset",
        where=where,
        found=subset,
        expected=f"perhaps {close[0]}" if close else "one of " + ", ".join(names[:20]),
        do=f"write it behind the name, for example :{close[0] if close else names[0]}",
    )
