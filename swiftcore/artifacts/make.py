"""Make an artifact, or reuse the one that is there: the only way anything enters the store."""

import errno
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from swiftcore.artifacts.digests import files_under, sha256_file, tree_digest
from swiftcore.artifacts.fingerprint import Identity
from swiftcore.artifacts.lease import Owner, hold
from swiftcore.artifacts.record import FileEntry, Record
from swiftcore.artifacts.store import Artifact, Store, WorkArea
from swiftcore.errors import StoreFull

_RECORDED_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "pyarrow", "bitsandbytes")


@dataclass(frozen=True)
class Produced:
    """What the body of a stage reports beside the files in `out`."""

    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    resumed_from: str | None = None


@dataclass(frozen=True)
class Outcome:
    """An artifact and how it came: `reused`, and why (or why not)."""

    artifact: Artifact
    reused: bool
    reason: str
    seconds: float


def make(
    store: Store,
    identity: Identity,
    body: Callable[[WorkArea], Produced],
    *,
    measured: Iterable[str] = (),
    required_bytes: int = 0,
    wait_seconds: float = 3600.0,
    on_wait: Callable[[Owner], None] = lambda owner: None,
) -> Outcome:
    """Return the artifact of an identity, running `body` only when no verified one exists.

    Args:
        store: where artifacts live.
        identity: what is wanted.
        body: writes files into `area.out`; may keep resumable state in `area.work`.
        measured: glob patterns of files that hold times or rates; verified, but not identity.
        required_bytes: refuse to start with less free disk than this.
        wait_seconds: longest wait for another run of the same identity.
        on_wait: told once who is being waited for.

    Raises:
        StoreFull: the disk is full, or `required_bytes` says it would be.
        LeaseHeld: the wait ran out.
    """
    started = time.monotonic()
    fingerprint = identity.fingerprint
    first = store.lookup(identity.stage, fingerprint)
    if first.artifact:
        return Outcome(first.artifact, True, "unchanged", time.monotonic() - started)
    waited: list[Owner] = []

    def note(owner: Owner) -> None:
        waited.append(owner)
        on_wait(owner)

    lease_path = store.lease_path(fingerprint)
    try:
        with hold(lease_path, wait_seconds=wait_seconds, on_wait=note) as lease:
            again = store.lookup(identity.stage, fingerprint)
            if again.artifact:
                reason = f"made by {waited[0].describe()}" if waited else "unchanged"
                return Outcome(again.artifact, True, reason, time.monotonic() - started)
            _refuse_full_disk(store.root, required_bytes)
            artifact = _run(store, identity, body, tuple(measured), lease.check)
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(err, StoreFull):
            shutil.rmtree(store.root / "in-progress" / fingerprint / "out", ignore_errors=True)
            raise _full(store.root, "the disk filled up while writing") from err
        raise
    return Outcome(artifact, False, again.problem or "new", time.monotonic() - started)


def _run(
    store: Store,
    identity: Identity,
    body: Callable[[WorkArea], Produced],
    measured: tuple[str, ...],
    still_ours: Callable[[], None],
) -> Artifact:
    area = store.begin(identity.fingerprint)
    began, clock = datetime.now(UTC), time.monotonic()
    produced = body(area)
    files = tuple(_entry(path, area.out, measured) for path in files_under(area.out))
    record = Record(
        stage=identity.stage,
        version=identity.version,
        name=identity.name,
        fingerprint=identity.fingerprint,
        digest=tree_digest((entry.path, entry.sha256) for entry in files if not entry.measured),
        config=dict(identity.config),
        inputs=dict(identity.inputs),
        files=files,
        metrics=produced.metrics,
        facts=produced.facts,
        started=began.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="microseconds"),
        seconds=round(time.monotonic() - clock, 3),
        resumed_from=produced.resumed_from,
        environment=environment(),
    )
    still_ours()
    return store.publish(area, record)


def environment() -> dict[str, Any]:
    """Return what a person needs to know about the machine and the code that made an artifact."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: found for name in _RECORDED_PACKAGES if (found := _version(name))},
        **_code_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _code_state() -> dict[str, Any]:
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {
            "git_commit": commit,
            "git_dirty": bool(_git(here, "status", "--porcelain", "-uno")),
        }
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def _entry(path: Path, root: Path, measured: tuple[str, ...]) -> FileEntry:
    name = path.relative_to(root).as_posix()
    return FileEntry(
        path=name,
        size=path.stat().st_size,
        sha256=sha256_file(path),
        measured=any(fnmatch(name, pattern) for pattern in measured),
    )


def _refuse_full_disk(root: Path, required_bytes: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < required_bytes:
        raise _full(root, f"{free / 1e6:.0f} MB free, about {required_bytes / 1e6:.0f} MB needed")


def _full(root: Path, found: str) -> StoreFull:
    return StoreFull(
        "There is no room in the artifact store.",
        where=root,
        found=found,
        expected="room for the step's files; nothing was published and finished steps are kept",
        do="swift gc frees old artifacts; or set runtime.store to another disk",
    )
