"""The data files of a local folder or pattern, in a fixed order; nothing from outside it."""

import difflib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from swiftcore.data.documents.folders import TOOL_FOLDERS
from swiftcore.data.documents.kinds import document_kind
from swiftcore.data.readers.files import DATA_SUFFIXES, data_suffix
from swiftcore.data.sources.spec import DatasetSpec
from swiftcore.errors import DataError, UsageError

_HELD_OUT = re.compile(r"(test|val|valid|validation|dev|eval)([-_.].*)?", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")
# What can't be a document, whatever is in it.
_ROWS_FOR_SURE = (".jsonl", ".ndjson", ".parquet", ".arrow", ".feather")
_DOCUMENTS_ADVICE = "set `documents: {}` in the data section to read documents and source code"
# What `datasets.save_to_disk` writes beside its .arrow files.
_SAVED_MARKS = ("state.json", "dataset_info.json")
_SAVED_FACTS = {*_SAVED_MARKS, "dataset_dict.json"}
_SAVED_SPLITS = {"train": ("train",), "val": ("validation", "test"), "test": ("test", "validation")}


def files_in_folder(
    root: Path, spec: DatasetSpec, role: str, documents: bool = False
) -> list[Path]:
    """Return the data files in and below a folder, or those of its subsets.

    Args:
        root: the folder.
        spec: the entry, with its subsets.
        role: train, val or test; picks the split of a folder that `datasets` saved.
        documents: return documents and source code too.

    Raises:
        DataError: there is none, no such subset, or a link leads out of the folder.
        UsageError: a training folder holds files that are named like held-out rows.
    """
    if spec.subsets:
        subsets = (_subset_files(root, name, spec, documents) for name in spec.subsets)
        files = [path for subset in subsets for path in subset]
    elif (root / "dataset_dict.json").is_file():
        files = _saved_split(root, spec, role)
    else:
        files = _data_files(root, root, spec, documents)
        _require_no_held_out(files, root, spec, role, documents)
    if not files:
        raise DataError(
            "the folder has no data file" + (" and no document" if documents else ""),
            where=repr(spec.text),
            found=", ".join(sorted(p.name for p in root.iterdir())[:8]) or "an empty folder",
            expected="files ending in " + ", ".join(DATA_SUFFIXES) + ", each also .gz or .zst",
            do=None if documents else _DOCUMENTS_ADVICE,
        )
    return files


def files_of_pattern(
    spec: DatasetSpec, role: str, documents: bool = False
) -> tuple[Path, list[Path]]:
    """Return the data files that match a pattern such as `data/**/*.jsonl`, and its fixed folder.

    Args:
        spec: the entry.
        role: train, val or test.
        documents: return documents and source code too.

    Raises:
        DataError: none matches, or a link leads out of the folder.
        UsageError: files for training are named like held-out rows.
    """
    pattern = Path(spec.path).expanduser()
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    base = Path(*parts[:fixed]) if fixed else Path()
    found = (Path(match) for match in glob.iglob(str(pattern), recursive=True))
    files = sorted(path for path in found if path.is_file() and _is_source(path, documents))
    if not files:
        raise DataError(
            "no data file matches the pattern",
            where=repr(spec.text),
            found=f"nothing for {pattern}",
            expected=nearest(pattern if base.is_dir() else base),
            do="correct the pattern; ** stands for any folders"
            + ("" if documents else "; " + _DOCUMENTS_ADVICE),
        )
    for path in files:
        _require_inside(path, base, spec)
    _require_no_held_out(files, base, spec, role, documents)
    return base, files


def files_left_out(root: Path) -> dict[str, int]:
    """Return the files of a folder that nothing reads: how many end in what."""
    endings: dict[str, int] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not _is_passed_over(name)]
        for name in names:
            if not name.startswith(".") and not _is_source(Path(folder, name), True):
                ending = Path(name).suffix.lower() or "no suffix"
                endings[ending] = endings.get(ending, 0) + 1
    return dict(sorted(endings.items()))


def nearest(path: Path) -> str:
    """Say which existing path is most like one that does not exist."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        path, folder = folder, folder.parent
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if close:
        return f"perhaps {folder / close[0]}"
    shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
    return f"one of the names in {folder}: {shown}" if names else f"a file in {folder}, now empty"


def _subset_files(root: Path, name: str, spec: DatasetSpec, documents: bool) -> list[Path]:
    folder = root / name
    if name in {".", ".."} or not folder.resolve().is_relative_to(root.resolve()):
        raise UsageError("a subset lies inside its folder", where=repr(spec.text), found=name)
    if folder.is_dir():
        return _data_files(folder, root, spec, documents)
    files = [
        path for path in _data_files(root, root, spec, documents) if path.name.split(".")[0] == name
    ]
    if not files:
        raise DataError(
            "the subset does not exist",
            where=repr(spec.text),
            found=f"no folder and no data file {name} in {root}",
            expected=nearest(folder),
        )
    return files


def _saved_split(root: Path, spec: DatasetSpec, role: str) -> list[Path]:
    """Return the files of the split that serves a role, of several that were saved together."""
    there = sorted(path.name for path in root.iterdir() if (path / "state.json").is_file())
    split = next((name for name in _SAVED_SPLITS[role] if name in there), None)
    if split is None and len(there) == 1:
        split = there[0]
    if split is None:
        raise DataError(
            f"the saved dataset has no split for {role} rows",
            where=repr(spec.text),
            found=", ".join(there) or "no split",
            expected=" or ".join(_SAVED_SPLITS[role]),
            do="name the split, for example :" + (there[0] if there else "train"),
        )
    return _data_files(root / split, root, spec)


def _data_files(folder: Path, root: Path, spec: DatasetSpec, documents: bool = False) -> list[Path]:
    files = sorted(_walk(folder, documents), key=lambda path: path.relative_to(folder).parts)
    for path in files:
        _require_inside(path, root, spec)
    return [path for path in files if path.is_file()]


def _walk(folder: Path, documents: bool) -> Iterator[Path]:
    """Yield the files to read, and links to folders, which are then checked but not followed."""
    for place, folders, names in os.walk(folder, onerror=_raise):
        hidden = _is_passed_over if documents else _is_hidden
        folders[:] = sorted(name for name in folders if not hidden(name))
        yield from (Path(place, name) for name in folders if Path(place, name).is_symlink())
        saved = all(mark in names for mark in _SAVED_MARKS)
        for name in names:
            is_fact = name in _SAVED_FACTS and (saved or name == "dataset_dict.json")
            if not is_fact and _is_source(Path(name), documents):
                yield Path(place, name)


def _raise(err: OSError) -> None:
    raise DataError("a folder can't be read", where=err.filename, found=err.strerror) from err


def _is_source(path: Path, documents: bool) -> bool:
    """Tell whether a file is data, or, where they are wanted, a document."""
    if _is_hidden(path.name):
        return False
    return data_suffix(path) is not None or (documents and document_kind(path) is not None)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_passed_over(name: str) -> bool:
    return _is_hidden(name) or name in TOOL_FOLDERS


def _require_inside(path: Path, root: Path, spec: DatasetSpec) -> None:
    fence = root.resolve()
    # The Hugging Face cache keeps snapshots as links to the blobs of the same repository.
    if fence.parent.name == "snapshots":
        fence = fence.parent.parent
    if not path.resolve().is_relative_to(fence):
        raise DataError(
            "a link leads out of the folder",
            where=str(path),
            found=f"it points to {path.resolve()}",
            expected=f"files below {root}, as {spec.text!r} says",
            do="copy the file into the folder, or name it in the recipe itself",
        )


def _require_no_held_out(
    files: Sequence[Path], root: Path, spec: DatasetSpec, role: str, documents: bool
) -> None:
    if role != "train":
        return
    held_out = [
        path.relative_to(root).as_posix()
        for path in files
        # The tests of a program are no test rows.
        if not (documents and data_suffix(path) not in _ROWS_FOR_SURE)
        and any(_HELD_OUT.fullmatch(p.split(".")[0]) for p in path.relative_to(root).parts)
    ]
    if held_out:
        raise UsageError(
            "a training folder also holds files that are named like held-out rows",
            where=repr(spec.text),
            found=", ".join(held_out[:8]),
            expected="training files only",
            do="name the files one by one in data.dataset, data.val_dataset and data.test_dataset",
        )
