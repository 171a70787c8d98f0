"""Free space: old artifacts, dead work in progress, damaged copies. Nothing in use is touched.

Work of an owner on another machine counts as live for as long as its lease file exists: waiting for
its counter to stand still is the business of a run that wants the same artifact.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swiftcore.artifacts.digests import files_under
from swiftcore.artifacts.lease import Lease, read_owner
from swiftcore.artifacts.store import IDENTITY_NAME, Artifact, Store

_MIN_PREFIX = 6


@dataclass(frozen=True)
class Garbage:
    """One folder that may go, and why.

    Args:
        path: the folder.
        size_bytes: of the files in it.
        reason: why nobody needs it.
        lease: for work in progress, the lease that must be free while it is removed.
    """

    path: Path
    size_bytes: int
    reason: str
    lease: Path | None = None


def find_garbage(store: Store, *, keep: int = 3, roots: Iterable[str] = ()) -> list[Garbage]:
    """List what can be removed.

    Args:
        store: where to look.
        keep: newest artifacts to keep of each stage and recipe name.
        roots: fingerprints, or the first digits of them, that must stay with all they were made
            from (served, registered).
    """
    artifacts = list(store.artifacts())
    live, dead = _work_in_progress(store)
    starts = {*_with_prefix(artifacts, roots), *_newest(artifacts, keep), *_inputs_of(live)}
    kept = _reachable(artifacts, starts)
    found = [
        Garbage(a.path, a.record.size_bytes, f"older than the newest {keep} and not in use")
        for a in artifacts
        if a.fingerprint not in kept
    ]
    for folder in dead:
        lease = store.lease_path(folder.name)
        found.append(Garbage(folder, _size(folder), "work in progress that nobody works on", lease))
    for folder in _children(store.root / "damaged"):
        found.append(Garbage(folder, _size(folder), "damaged copy that was set aside"))
    return found


def remove(garbage: Iterable[Garbage]) -> int:
    """Remove what `find_garbage` listed and return the freed bytes.

    Work in progress that somebody took up since it was listed stays.
    """
    freed = 0
    for item in garbage:
        lease = Lease(item.lease) if item.lease else None
        if lease is not None and lease.try_acquire() is not None:
            continue
        try:
            shutil.rmtree(item.path)
            freed += item.size_bytes
        finally:
            if lease is not None:
                lease.release()
    return freed


def _work_in_progress(store: Store) -> tuple[list[Path], list[Path]]:
    """Return the folders that somebody works in, and those that nobody does."""
    live, dead = [], []
    for folder in _children(store.root / "in-progress"):
        owner = read_owner(store.lease_path(folder.name))
        (dead if owner is None or owner.is_dead() else live).append(folder)
    return live, dead


def _inputs_of(folders: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for folder in folders:
        try:
            inputs = json.loads((folder / IDENTITY_NAME).read_text(encoding="utf-8"))["inputs"]
        except FileNotFoundError:  # its owner has just begun or just published
            continue
        found |= {ref["fingerprint"] for ref in inputs.values() if ref["fingerprint"]}
    return found


def _with_prefix(artifacts: list[Artifact], roots: Iterable[str]) -> set[str]:
    wanted = tuple(root for root in roots if len(root) >= _MIN_PREFIX)
    return {a.fingerprint for a in artifacts if a.fingerprint.startswith(wanted)}


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
