"""Make an artifact, or reuse the one that is there: the only way a stage's result is stored."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from swiftcore.artifacts.digests import entries_under, sha256_file, tree_digest
from swiftcore.artifacts.environment import environment
from swiftcore.artifacts.fingerprint import Identity
from swiftcore.artifacts.lease import Lease, Owner, hold
from swiftcore.artifacts.record import FileEntry, Record
from swiftcore.artifacts.space import full_disk_reported, require_room
from swiftcore.artifacts.store import Artifact, Store, WorkArea
from swiftcore.errors import SwiftError


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
        LeaseLost: this process was taken for dead meanwhile; nothing was published.
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
    with (
        full_disk_reported(store.root),
        hold(lease_path, wait_seconds=wait_seconds, on_wait=note) as lease,
    ):
        again = store.lookup(identity.stage, fingerprint)
        if again.artifact:
            reason = f"made by {waited[-1].describe()}" if waited else "unchanged"
            return Outcome(again.artifact, True, reason, time.monotonic() - started)
        require_room(store.root, required_bytes)
        artifact = _run(store, identity, body, tuple(measured), lease)
    return Outcome(artifact, False, again.problem or "new", time.monotonic() - started)


def _run(
    store: Store,
    identity: Identity,
    body: Callable[[WorkArea], Produced],
    measured: tuple[str, ...],
    lease: Lease,
) -> Artifact:
    area = store.begin(identity.fingerprint, identity)
    with full_disk_reported(store.root, area.out):
        record = _record(identity, area, body, measured, lease)
        return store.publish(area, record, lease.guard())


def _record(
    identity: Identity,
    area: WorkArea,
    body: Callable[[WorkArea], Produced],
    measured: tuple[str, ...],
    lease: Lease,
) -> Record:
    """Run the body and describe what it left."""
    began, clock = datetime.now(UTC), time.monotonic()
    produced = body(area)
    lease.check()  # before gigabytes are hashed for nothing
    files = tuple(_entry(path, area.out, measured) for path in entries_under(area.out))
    return Record(
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


def _entry(path: Path, root: Path, measured: tuple[str, ...]) -> FileEntry:
    name = path.relative_to(root).as_posix()
    if path.is_symlink() or not path.is_file():
        raise SwiftError(
            "A stage left something that is no file among its results.",
            where=name,
            found="a link" if path.is_symlink() else "a pipe, socket or device",
            expected="files, whose content a record can vouch for",
            do="report this as a bug of the stage",
        )
    return FileEntry(
        path=name,
        size=path.stat().st_size,
        sha256=sha256_file(path),
        measured=any(fnmatch(name, pattern) for pattern in measured),
    )
