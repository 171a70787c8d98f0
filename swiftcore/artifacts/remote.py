"""Copies of artifacts elsewhere, by digest: a folder or `s3://bucket/prefix`.

    <remote>/blobs/<sha[:2]>/<sha>                          each file once, whatever its name
    <remote>/records/<stage>/<name>-<fingerprint12>.json    written last, so a half push is no push

A remote is not trusted: a pull checks the record and every file's sha256 before it publishes, with
the same single rename as a run.
"""

import tempfile
from pathlib import Path

from swiftcore.artifacts.digests import sha256_file, tree_digest
from swiftcore.artifacts.lease import hold
from swiftcore.artifacts.record import RECORD_NAME, FileEntry, Record
from swiftcore.artifacts.remote_places import Remote, open_remote
from swiftcore.artifacts.space import full_disk_reported, require_room
from swiftcore.artifacts.store import Artifact, Store, WorkArea
from swiftcore.errors import ArtifactDamaged, UsageError

__all__ = ["open_remote", "pull", "push"]


def push(store: Store, artifact: Artifact, remote: Remote) -> int:
    """Copy an artifact to the remote and return how many files had to travel.

    Raises:
        ArtifactDamaged: the artifact does not match its record; nothing is pushed.
    """
    store.verify(artifact)
    sent = 0
    for entry in artifact.record.files:
        key = _blob(entry.sha256)
        if remote.size(key) != entry.size:
            remote.put(key, artifact.path / entry.path)
            sent += 1
    remote.put(_record_key(artifact.record), artifact.path / RECORD_NAME)
    return sent


def pull(store: Store, reference: str, remote: Remote) -> Artifact:
    """Fetch the artifact that `stage/name-fingerprint12` or a fingerprint prefix names.

    Raises:
        UsageError: nothing, or more than one record, matches.
        ArtifactDamaged: the record, or a file it names, is missing or altered.
        StoreFull: there is no room for it here.
    """
    key = _find_record(remote, reference)
    record = _fetch_record(remote, key)
    with (
        full_disk_reported(store.root),
        hold(store.lease_path(record.fingerprint), wait_seconds=3600) as lease,
    ):
        present = store.lookup(record.stage, record.fingerprint)
        if present.artifact:
            return present.artifact
        require_room(store.root, record.size_bytes)
        area = store.begin(record.fingerprint, record.identity)
        with full_disk_reported(store.root, area.out):
            _fetch_files(remote, record, area)
            return store.publish(area, record, lease.guard())


def _fetch_record(remote: Remote, key: str) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / RECORD_NAME
        remote.get(key, copy)
        record = Record.from_json(copy.read_text(encoding="utf-8", errors="replace"), key)
    content = tree_digest((e.path, e.sha256) for e in record.files if not e.measured)
    if _record_key(record) != key:
        raise _altered(key, _record_key(record), key)
    if content != record.digest:
        raise _altered(key, f"files of digest {content}", f"digest {record.digest}")
    return record


def _fetch_files(remote: Remote, record: Record, area: WorkArea) -> None:
    for entry in record.files:
        target = area.out / entry.path  # Record has refused paths that lead out of here
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch_file(remote, entry, target)


def _fetch_file(remote: Remote, entry: FileEntry, target: Path) -> None:
    key = _blob(entry.sha256)
    try:
        remote.get(key, target)
    except FileNotFoundError as err:
        raise _altered(key, "nothing", f"{entry.path}, {entry.size} bytes") from err
    found = sha256_file(target)
    if found != entry.sha256:
        raise _altered(key, f"sha256 {found}", f"{entry.path}, sha256 {entry.sha256}")


def _altered(key: str, found: str, expected: str) -> ArtifactDamaged:
    return ArtifactDamaged(
        "The remote copy of an artifact is damaged; nothing was pulled.",
        where=key,
        found=found,
        expected=expected,
        do="delete that file on the remote and push again from a machine that has the artifact",
    )


def _find_record(remote: Remote, reference: str) -> str:
    wanted = reference.removeprefix("artifact:")
    keys = [key for key in remote.keys("records/") if key.endswith(".json")]
    matches = [
        key
        for key in keys
        if key == f"records/{wanted}.json"
        or (len(wanted) >= 6 and _fingerprint12(key).startswith(wanted[:12]))
    ]
    if len(matches) == 1:
        return matches[0]
    raise UsageError(
        "Several artifacts match." if matches else "The remote has no such artifact.",
        where=reference,
        found=", ".join(matches or keys[-5:]) or "an empty remote",
        expected="stage/name-fingerprint12, or 6 or more digits of a fingerprint",
        do="push it first: swift push REFERENCE --remote URL",
    )


def _fingerprint12(key: str) -> str:
    return key.removesuffix(".json").rpartition("-")[2]


def _blob(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def _record_key(record: Record) -> str:
    return f"records/{record.stage}/{record.name}-{record.fingerprint[:12]}.json"
