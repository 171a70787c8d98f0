"""From dataset entries to the local files they stand for."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swiftcore.data.readers.files import DATA_SUFFIXES, data_suffix
from swiftcore.data.sources.spec import DatasetSpec, parse_dataset_spec
from swiftcore.errors import DataError, EnvironmentMissing, UsageError
from swiftcore.recipe.sections import DataSection

Role = Literal["train", "val", "test"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HELD_OUT_STEM = re.compile(r"(test|val|valid|validation|dev|eval)([-_.].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class SourceFile:
    """One file that shapes a dataset.

    Args:
        role: split its rows belong to, before a validation split.
        spec: entry of the recipe it comes from.
        path: the file.
    """

    role: Role
    spec: DatasetSpec
    path: Path

    @property
    def name(self) -> str:
        """The file as the recipe writes it, for messages and reports."""
        root = Path(self.spec.path).expanduser()
        if self.path == root:
            return self.spec.path
        return f"{self.spec.path.rstrip('/')}/{self.path.relative_to(root).as_posix()}"


def source_files(section: DataSection) -> list[SourceFile]:
    """List every file an ingest reads, in reading order: the content its identity depends on.

    Raises:
        UsageError: an entry can't be parsed, or a folder mixes training and held-out files.
        DataError: a path does not exist, or a folder has no data file.
        EnvironmentMissing: an entry names a dataset on a hub.
    """
    roles: list[tuple[Role, list[str]]] = [
        ("train", section.dataset),
        ("val", section.val_dataset),
        ("test", section.test_dataset),
    ]
    return [
        SourceFile(role, spec, path)
        for role, entries in roles
        for spec in map(parse_dataset_spec, entries)
        for path in _local_files(spec, role)
    ]


def _local_files(spec: DatasetSpec, role: Role) -> list[Path]:
    if spec.prefix is not None and spec.hub is None:
        raise UsageError(
            "a dataset entry names an unknown hub",
            where=repr(spec.text),
            found=f"{spec.prefix}::",
            expected="hf:: or ms::, or a path without prefix",
            do="correct or remove the prefix",
        )
    if not spec.is_local:
        raise _not_here(spec)
    root = Path(spec.path).expanduser()
    if root.is_dir():
        return _files_in_folder(root, spec, role)
    if spec.subsets:
        raise UsageError(
            "a single file has no subsets",
            where=repr(spec.text),
            found=":" + "/".join(spec.subsets),
            do="remove the subset, or give the folder that holds it",
        )
    return [root]


def _not_here(spec: DatasetSpec) -> DataError | EnvironmentMissing:
    if spec.hub is not None or (not _looks_local(spec.path) and _HUB_ID.fullmatch(spec.path)):
        return EnvironmentMissing(
            "datasets are read from local files; hubs are not reached for now",
            where=repr(spec.text),
            found=f"hub id {spec.path}",
            expected="a local file or folder",
            do="download it and give the folder, for example data.dataset: [data/my_set]",
        )
    return DataError(
        "the dataset does not exist",
        where=repr(spec.text),
        found=f"no file or folder {spec.path}",
        expected=_nearest(Path(spec.path).expanduser()),
        do="correct the path; relative paths start at the folder the command runs in",
    )


def _looks_local(path: str) -> bool:
    """A hub id is `org/name`; anything that starts or ends like a file is a path, never an id."""
    if path.startswith((".", "/", "~")) or "\\" in path or path.count("/") != 1:
        return True
    return data_suffix(Path(path)) is not None or Path(path.split("/")[0]).is_dir()


def _nearest(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        path, folder = folder, folder.parent
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if close:
        return f"perhaps {folder / close[0]}"
    shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
    return f"one of the names in {folder}: {shown}" if names else f"a file in {folder}, now empty"


def _files_in_folder(root: Path, spec: DatasetSpec, role: Role) -> list[Path]:
    if spec.subsets:
        files = [path for name in spec.subsets for path in _subset_files(root, name, spec)]
    else:
        files = _data_files(root)
    if not files:
        raise DataError(
            "the folder has no data file",
            where=repr(spec.text),
            found=", ".join(sorted(p.name for p in root.iterdir())[:8]) or "an empty folder",
            expected="files ending in " + ", ".join(DATA_SUFFIXES) + ", each also .gz",
        )
    held_out = [path for path in files if _HELD_OUT_STEM.fullmatch(path.name.split(".")[0])]
    if role == "train" and held_out and not spec.subsets:
        raise UsageError(
            "a training folder also holds files that are named like held-out rows",
            where=repr(spec.text),
            found=", ".join(path.name for path in held_out),
            expected="training files only",
            do="name the files one by one in data.dataset, data.val_dataset and data.test_dataset",
        )
    return files


def _subset_files(root: Path, name: str, spec: DatasetSpec) -> list[Path]:
    folder = root / name
    if name in {".", ".."} or not folder.resolve().is_relative_to(root.resolve()):
        raise UsageError("a subset lies inside its folder", where=repr(spec.text), found=name)
    if folder.is_dir():
        return _data_files(folder)
    files = [path for path in _data_files(root) if path.name.split(".")[0] == name]
    if not files:
        raise DataError(
            "the subset does not exist",
            where=repr(spec.text),
            found=f"no folder and no data file {name} in {root}",
            expected=_nearest(folder),
        )
    return files


def _data_files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and data_suffix(path) is not None
    ]
