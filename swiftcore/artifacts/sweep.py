"""Free space: old artifacts, dead work in progress, damaged copies. Nothing in use is touched."""

import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swiftcore.artifacts.digests import files_under
from swiftcore.artifacts.lease import read_owner
from swiftcore.artifacts.store import Artifact, Store


@dataclass(frozen=True)
class Garbage:
    """One folder that may go, and why."""

    path: Path
    size_bytes: int
    reason: str


def find_garbage(store: Store, *, keep: int = 3, roots: Iterable[str] = ()) -> list[Garbage]:
    """List what can be removed.

    Args:
        store: where to look.
        keep: newest artifacts to keep of each stage and recipe name.
        roots: fingerprints that must stay with all they were made from (served, registered).
    """
    artifacts = list(store.artifacts())
    kept = _reachable(artifacts, {*roots, *_newest(artifacts, keep)})
    found = [
        Garbage(a.path, a.record.size_bytes, f"older than the newest {keep} and not in use")
        for a in artifacts
        if a.fingerprint not in kept
    ]
    for folder in _children(store.root / "in-progress"):
        owner = read_owner(store.lease_path(folder.name))
        if owner is None or owner.is_dead():
            found.append(Garbage(folder, _size(folder), "work in progress that nobody works on"))
    for folder in _children(store.root / "damaged"):
        found.append(Garbage(folder, _size(folder), "damaged copy that was set aside"))
    return found


def remove(garbage: Iterable[Garbage]) -> int:
    """Remove what `find_garbage` listed and return the freed bytes."""
    freed = 0
    for item in garbage:
        shutil.rmtree(item.path)
        freed += item.size_bytes
    return freed


def _newest(artifacts: list[Artifact], keep: int) -> set[str]:
    groups: dict[tuple[str, str], list[Artifact]] = defaultdict(list)
    for artifact in artifacts:
        groups[artifact.record.stage, artifact.record.name].append(artifact)
    return {a.fingerprint for group in groups.values() for a in group[max(len(group) - keep, 0) :]}


def _reachable(artifacts: list[Artifact], roots: set[str]) -> set[str]:
    inputs = {
        a.fingerprint: {ref.fingerprint for ref in a.record.inputs.values() if ref.fingerprint}
        for a in artifacts
    }
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        fingerprint = waiting.pop()
        if fingerprint not in reached:
            reached.add(fingerprint)
            waiting += inputs.get(fingerprint, set())
    return reached


def _children(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_under(folder))
