"""Copies of artifacts elsewhere, by digest: a folder or `s3://bucket/prefix`.

    <remote>/blobs/<sha[:2]>/<sha>                          each file once, whatever its name
    <remote>/records/<stage>/<name>-<fingerprint12>.json    written last, so a half push is no push

A pull verifies every file's sha256 and publishes with the same single rename as a run does.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from swiftcore.artifacts.digests import sha256_file
from swiftcore.artifacts.lease import hold
from swiftcore.artifacts.record import Record
from swiftcore.artifacts.store import Artifact, Store
from swiftcore.errors import ArtifactDamaged, EnvironmentMissing, TransientError, UsageError


class Remote(Protocol):
    """Keeps named files."""

    def has(self, key: str) -> bool:
        """Tell whether a file is there."""
        ...

    def put(self, key: str, source: Path) -> None:
        """Store a file; a reader never sees half of it."""
        ...

    def get(self, key: str, target: Path) -> None:
        """Fetch a file."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the names below a prefix."""
        ...


class FolderRemote:
    """A remote in a folder, such as a network share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, key: str) -> bool:
        """Tell whether a file is there."""
        return (self._root / key).is_file()

    def put(self, key: str, source: Path) -> None:
        """Copy to a temporary name, then rename."""
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)

    def get(self, key: str, target: Path) -> None:
        """Copy a file here."""
        shutil.copyfile(self._root / key, target)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the names below a prefix, sorted."""
        for path in sorted((self._root / prefix).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self._root).as_posix()


class S3Remote:
    """A remote in an S3 bucket; boto3 reads endpoint and keys from the environment."""

    def __init__(self, bucket: str, prefix: str) -> None:
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as err:
            raise EnvironmentMissing(
                "S3 needs boto3, which is not installed.",
                where=f"s3://{bucket}/{prefix}",
                do="pip install 'swiftcore[track]'",
            ) from err
        self._client: Any = boto3.client("s3")
        self._failures: tuple[type[Exception], ...] = (BotoCoreError, ClientError)
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    def has(self, key: str) -> bool:
        """Tell whether an object is there."""
        return any(found == key for found in self.keys(key))

    def put(self, key: str, source: Path) -> None:
        """Upload a file; S3 shows it when it is whole."""
        self._call(self._client.upload_file, str(source), self._bucket, self._name(key))

    def get(self, key: str, target: Path) -> None:
        """Download an object."""
        self._call(self._client.download_file, self._bucket, self._name(key), str(target))

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the names below a prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._name(prefix)
        )
        start = len(self._prefix) + 1 if self._prefix else 0
        for page in self._call(list, pages):
            yield from (item["Key"][start:] for item in page.get("Contents", []))

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._failures as err:
            raise TransientError(
                "The S3 remote did not answer as expected.",
                where=f"s3://{self._bucket}/{self._prefix}",
                found=f"{type(err).__name__}: {err}",
                expected="a reachable bucket and valid keys in the environment",
                do="check AWS_ENDPOINT_URL and the AWS keys, then repeat the command",
            ) from err


def open_remote(url: str) -> Remote:
    """Return the remote that a URL or a folder names.

    Raises:
        UsageError: another scheme.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return FolderRemote(Path(url))
    if scheme == "s3" and rest:
        bucket, _, prefix = rest.partition("/")
        return S3Remote(bucket, prefix)
    raise UsageError(
        "This kind of remote is not supported.",
        where="remote",
        found=url,
        expected="a folder or s3://bucket/prefix",
        do="for another store, mount it as a folder",
    )


def push(store: Store, artifact: Artifact, remote: Remote) -> int:
    """Copy an artifact to the remote and return how many files had to travel.

    Raises:
        ArtifactDamaged: the artifact does not match its record; nothing is pushed.
    """
    store.verify(artifact)
    sent = 0
    for entry in artifact.record.files:
        key = _blob(entry.sha256)
        if not remote.has(key):
            remote.put(key, artifact.path / entry.path)
            sent += 1
    remote.put(_record_key(artifact.record), artifact.path / "record.json")
    return sent


def pull(store: Store, reference: str, remote: Remote) -> Artifact:
    """Fetch the artifact that `stage/name-fingerprint12` or a fingerprint prefix names.

    Raises:
        UsageError: nothing, or more than one record, matches.
        ArtifactDamaged: a fetched file has another digest than its record says.
    """
    key = _find_record(remote, reference)
    staging = store.root / "in-progress" / "pull.json"
    staging.parent.mkdir(parents=True, exist_ok=True)
    remote.get(key, staging)
    record = Record.from_json(staging.read_text(encoding="utf-8"), key)
    staging.unlink()
    with hold(store.lease_path(record.fingerprint), wait_seconds=3600):
        present = store.lookup(record.stage, record.fingerprint)
        if present.artifact:
            return present.artifact
        area = store.begin(record.fingerprint)
        for entry in record.files:
            target = _inside(area.out, entry.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            remote.get(_blob(entry.sha256), target)
            found = sha256_file(target)
            if found != entry.sha256:
                raise ArtifactDamaged(
                    f"The remote copy of {entry.path} is damaged.",
                    where=key,
                    found=f"sha256 {found}",
                    expected=f"sha256 {entry.sha256}",
                    do="push the artifact again from a machine that has it",
                )
        return store.publish(area, record)


def _find_record(remote: Remote, reference: str) -> str:
    wanted = reference.removeprefix("artifact:")
    keys = [key for key in remote.keys("records/") if key.endswith(".json")]
    matches = [
        key
        for key in keys
        if key == f"records/{wanted}.json"
        or (len(wanted) >= 6 and key.removesuffix(".json").endswith(f"-{wanted[:12]}"))
    ]
    if len(matches) == 1:
        return matches[0]
    raise UsageError(
        "The remote has no such artifact." if not matches else "Several artifacts match.",
        where=reference,
        found=", ".join(matches or keys[-5:]) or "an empty remote",
        expected="stage/name-fingerprint12, or 12 digits of a fingerprint",
        do="push it first: swift push REFERENCE --remote URL",
    )


def _inside(root: Path, name: str) -> Path:
    """Return `root/name`, refusing names that lead out of it."""
    target = (root / name).resolve()
    if not target.is_relative_to(root.resolve()):
        raise ArtifactDamaged(
            "A record names a file outside its artifact.",
            where=name,
            expected="a relative path without ..",
            do="don't use this remote; its records were altered",
        )
    return target


def _blob(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def _record_key(record: Record) -> str:
    return f"records/{record.stage}/{record.name}-{record.fingerprint[:12]}.json"
