"""Files that DVC tracks: pulled when they are missing, with their revision and md5."""

import functools
import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from swiftcore.data.readers.streams import Stamp
from swiftcore.data.sources.cache import is_offline
from swiftcore.errors import DataError, EnvironmentMissing

Origin = dict[str, str]


@dataclass(frozen=True)
class Pointer:
    """An output that DVC tracks.

    Args:
        root: the DVC repository.
        file: the `.dvc` file or `dvc.lock` that names it.
        out: the output, a file or folder.
        md5: its digest; ends in `.dir` for a folder.
    """

    root: Path
    file: Path
    out: Path
    md5: str


def dvc_source(path: Path) -> tuple[Path, Origin] | None:
    """Return a path that DVC tracks and where it comes from, pulled first if it is missing.

    The digest is checked against the content: an altered file is said to be altered, because
    DVC's revision no longer tells what is in it.

    Args:
        path: a file or folder, that may be inside a tracked folder.

    Returns:
        The path and its origin; None when DVC does not track it.

    Raises:
        DataError: the pulled file is not the tracked one, or the pointer can't be read.
        EnvironmentMissing: neither cache nor remote has the file, or the remote may not be asked.
    """
    pointer = _find_pointer(path.absolute())
    if pointer is None:
        return None
    pulled = not path.exists()
    if pulled:
        _pull(pointer, path.absolute())
    expected = _expected_md5(pointer, path.absolute())
    origin = {
        "dvc_revision": _revision(pointer),
        "dvc_pointer": pointer.file.relative_to(pointer.root).as_posix(),
        "dvc_md5": expected,
    }
    if path.is_file() and not expected.endswith(".dir"):
        found = _known_md5(path.absolute(), Stamp.of(path))
        if found != expected:
            if pulled:
                raise DataError(
                    "DVC brought another file than its pointer names",
                    where=path,
                    found=f"md5 {found}",
                    expected=f"md5 {expected} of {pointer.file}",
                )
            origin |= {"dvc_state": "altered", "md5": found}
    return path, {name: value for name, value in origin.items() if value}


def _find_pointer(path: Path) -> Pointer | None:
    root = next((place for place in path.parents if (place / ".dvc").is_dir()), None)
    if root is None:
        return None
    for place in (path, *path.parents):
        if place == root:
            break
        file = place.with_name(f"{place.name}.dvc")
        if file.is_file():
            for out in _yaml(file).get("outs", []):
                if file.parent / out["path"] == place:
                    return Pointer(root, file, place, str(out.get("md5", "")))
    return _pipeline_output(root, path)


def _pipeline_output(root: Path, path: Path) -> Pointer | None:
    for folder in path.parents:
        lock = folder / "dvc.lock"
        if lock.is_file():
            for stage in _yaml(lock).get("stages", {}).values():
                for out in stage.get("outs", []):
                    place = folder / out["path"]
                    if path == place or place in path.parents:
                        return Pointer(root, lock, place, str(out.get("md5", "")))
        if folder == root:
            return None
    return None


def _yaml(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise DataError("a DVC file can't be read", where=file, found=err) from err
    return found if isinstance(found, dict) else {}


def _pull(pointer: Pointer, path: Path) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    where = path.relative_to(pointer.root).as_posix()
    try:
        with Repo(str(pointer.root)) as repo:
            if is_offline():
                repo.checkout(targets=[str(path)])
            else:
                repo.pull(targets=[str(path)])
    except (DvcException, OSError) as err:
        found = " ".join(str(err).split())[:300]
    else:
        found = "nothing"
    if not path.exists():
        raise EnvironmentMissing(
            "DVC tracks the file, but could not bring it",
            where=where,
            found=found,
            expected=f"what {pointer.file.relative_to(pointer.root)} names, md5 {pointer.md5}",
            do="unset SWIFTCORE_OFFLINE, or pull it where it may be asked for"
            if is_offline()
            else f"run dvc pull {where} to see more; push it from where it is",
        )


def _expected_md5(pointer: Pointer, path: Path) -> str:
    """Return the tracked md5 of the path itself; of the whole folder where that is not known."""
    if path == pointer.out or not pointer.md5.endswith(".dir"):
        return pointer.md5
    listing = pointer.root / ".dvc/cache/files/md5" / pointer.md5[:2] / pointer.md5[2:]
    try:
        items = json.loads(listing.read_text(encoding="utf-8"))
        inside = path.relative_to(pointer.out).as_posix()
        return next((item["md5"] for item in items if item["relpath"] == inside), pointer.md5)
    except (OSError, ValueError, KeyError):
        return pointer.md5


def _revision(pointer: Pointer) -> str:
    """Return the git commit of the repository, marked when the pointer is not what it holds."""
    git = pointer.root / ".git"
    states = (git / "logs/HEAD", git / "HEAD", git / "index", pointer.file)
    stamp = tuple(place.stat().st_mtime_ns if place.exists() else 0 for place in states)
    return _git_revision(pointer.root, pointer.file, stamp)


@functools.lru_cache(maxsize=64)
def _git_revision(root: Path, file: Path, stamp: tuple[int, ...]) -> str:
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", str(file))
    return f"{head}+changes" if head and changed else head


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.lru_cache(maxsize=4096)
def _known_md5(path: Path, stamp: Stamp) -> str:
    """Hash a file once, as long as it does not change: a plan and its run both ask."""
    with path.open("rb") as stream:
        return hashlib.file_digest(
            stream, functools.partial(hashlib.md5, usedforsecurity=False)
        ).hexdigest()
