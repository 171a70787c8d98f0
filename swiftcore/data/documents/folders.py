"""The files under the inputs of an ingestion, in one order, each with a name for the report."""

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swiftcore.errors import DataError

# Folders that tools fill: their content was written by nobody, or is in the project anyway.
TOOL_FOLDERS = {"CVS", "__pycache__", "node_modules"}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read.

    Args:
        path: the file, links resolved.
        name: how the report and the rows call it: as the input was written, or, for an input
            that is absolute or climbs up, from its own name on: no machine's paths get into rows.
    """

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file or folder that was not read, and why."""

    name: str
    reason: str


def find_files(
    inputs: Sequence[Path], outputs: Sequence[Path] = ()
) -> Iterator[FoundFile | SkippedFile]:
    """Yield every file under the inputs, sorted by name within each folder.

    Hidden entries, folders of tools, links that leave the input, things that are no regular file,
    files met before and the outputs of this run come as `SkippedFile`. An input that is named
    itself is read, hidden or not.

    Raises:
        DataError: an input does not exist.
    """
    missing = [path for path in inputs if not os.path.exists(path)]
    if missing:
        raise _not_there(missing[0])
    walk = _Walk({path.resolve() for path in outputs})
    for path in inputs:
        name = _input_name(path)
        yield from walk.entries(path.resolve(), name, path.resolve())


class _Walk:
    """One walk over all inputs, which knows what it has met."""

    def __init__(self, outputs: set[Path]) -> None:
        self._outputs = outputs
        self._seen: dict[Path, str] = {}

    def entries(self, path: Path, name: str, root: Path) -> Iterator[FoundFile | SkippedFile]:
        """Yield what is at a path whose links are resolved."""
        if path in self._outputs:
            yield SkippedFile(name, "is written by this run")
        elif path in self._seen:
            yield SkippedFile(name, f"was met before as {self._seen[path]}")
        elif os.path.isdir(path):
            self._seen[path] = name
            yield from self._folder(path, name, root)
        elif os.path.isfile(path):
            self._seen[path] = name
            yield FoundFile(path, name)
        else:
            yield SkippedFile(name, _what_it_is(path))

    def _folder(self, folder: Path, name: str, root: Path) -> Iterator[FoundFile | SkippedFile]:
        try:
            entries = sorted(os.listdir(folder))
        except OSError as err:
            yield SkippedFile(name, f"can't be listed: {err.strerror or err}")
            return
        for entry in entries:
            path, entry_name = folder / entry, f"{name}/{entry}" if name else entry
            reason = _reason_to_skip(path, root)
            if reason is None:
                yield from self.entries(path.resolve(), entry_name, root)
            else:
                yield SkippedFile(entry_name, reason)


def _reason_to_skip(path: Path, root: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if path.name in TOOL_FOLDERS and os.path.isdir(path):
        return "a folder of tools"
    if not path.is_symlink():
        return None
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    return None if target.is_relative_to(root) else "a link that leads out of the input folder"


def _what_it_is(path: Path) -> str:
    try:
        os.stat(path)
    except OSError as err:
        return f"can't be looked at: {err.strerror or err}"
    return "is no regular file"


def _input_name(path: Path) -> str:
    plain = Path(os.path.normpath(path))
    if plain.is_absolute() or ".." in plain.parts:
        return path.resolve().name
    return "" if plain == Path() else plain.as_posix()


def _not_there(path: Path) -> DataError:
    folder = path.parent
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return DataError(
        "an input does not exist",
        where=path,
        expected=f"perhaps {folder / close[0]}" if close else None,
        do="correct the path; relative paths start at the folder the command runs in",
    )
