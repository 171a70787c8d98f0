"""Datasets on hubs as files to read: fetched by the hub layer, narrowed to one split."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

from swiftcore.data.documents.config import HuggingFaceSource
from swiftcore.data.documents.folders import FoundFile
from swiftcore.data.readers.files import data_suffix
from swiftcore.errors import DataError

_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}


class Fetch(Protocol):
    """Brings a dataset from a hub into a local folder (`swiftcore.data.sources.fetch`)."""

    def __call__(
        self,
        hub: Literal["hf", "ms"],
        dataset_id: str,
        *,
        revision: str | None,
        subset: str | None,
        offline: bool,
    ) -> Path:
        """Return a folder with the data files."""
        ...


def hub_files(source: HuggingFaceSource, fetch: Fetch) -> list[FoundFile]:
    """Return the data files of a hub dataset that belong to the split asked for.

    Raises:
        DataError: there is no data file, or none of this split.
        SwiftError: whatever fetching raises.
    """
    folder = fetch(
        source.hub,
        source.dataset_id,
        revision=source.revision,
        subset=source.subset,
        offline=source.offline,
    )
    root = folder if folder.is_dir() else folder.parent
    paths = [folder] if folder.is_file() else sorted(_data_files(folder))
    if not paths:
        raise DataError("the hub dataset has no data file", where=source.name, found=folder)
    splits = {path: _split_of(path.relative_to(root)) for path in paths}
    wanted = _canonical(source.split)
    chosen = [path for path in paths if splits[path] == wanted]
    if not chosen and wanted == "train":
        # Many datasets are one file without the name of a split: that is the training split.
        chosen = [path for path in paths if splits[path] is None]
    if not chosen:
        raise DataError(
            "the hub dataset has no such split",
            where=source.name,
            found=f"split {source.split}",
            expected=", ".join(sorted({split or "train" for split in splits.values()})),
            do="give the split with --hf-split",
        )
    return [
        FoundFile(path, f"{source.name}/{path.relative_to(root).as_posix()}") for path in chosen
    ]


def _data_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and data_suffix(path) not in (None, ".txt"):
            yield path


def _split_of(path: Path) -> str | None:
    """Return the split that a path names, in a folder or in the file's name."""
    words = re.split(r"[^a-z0-9]+", path.as_posix().lower())
    for split, names in _SPLIT_WORDS.items():
        if any(name in words for name in names):
            return split
    return None


def _canonical(split: str) -> str:
    word = split.lower()
    return next((name for name, words in _SPLIT_WORDS.items() if word in words), word)
