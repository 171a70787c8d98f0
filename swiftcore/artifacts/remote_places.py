"""Places that keep named files for `remote`: a folder or an S3 bucket."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from swiftcore.errors import EnvironmentMissing, TransientError, UsageError

_ABSENT = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {
    "403",
    "AccessDenied",
    "InvalidAccessKeyId",
    "NoSuchBucket",
    "SignatureDoesNotMatch",
}


class Remote(Protocol):
    """Keeps named files."""

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, None when it is not there."""
        ...

    def put(self, key: str, source: Path) -> None:
        """Store a file; a reader never sees half of it."""
        ...

    def get(self, key: str, target: Path) -> None:
        """Fetch a file.

        Raises:
            FileNotFoundError: the remote has no such file.
        """
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the names below a prefix."""
        ...


class FolderRemote:
    """A remote in a folder, such as a network share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, None when it is not there."""
        path = self._root / key
        return path.stat().st_size if path.is_file() else None

    def put(self, key: str, source: Path) -> None:
        """Copy to a temporary name, then rename."""
        target = self._root / key
        temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
        with self._reported():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, temporary)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def get(self, key: str, target: Path) -> None:
        """Copy a file here."""
        shutil.copyfile(self._root / key, target)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the names below a prefix, sorted."""
        for path in sorted((self._root / prefix).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self._root).as_posix()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise EnvironmentMissing(
                "The remote folder can't be written.",
                where=self._root,
                found=f"{type(err).__name__}: {err}",
                expected="a folder with room that this user may write to",
                do="mount the share, free space or mend the permissions, then push again",
            ) from err


class S3Remote:
    """A remote in an S3 bucket; boto3 reads endpoint and keys from the environment."""

    def __init__(self, bucket: str, prefix: str) -> None:
        try:
            import boto3
            from boto3.exceptions import Boto3Error
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as err:
            raise EnvironmentMissing(
                "S3 needs boto3, which is not installed.",
                where=f"s3://{bucket}/{prefix}",
                do="pip install 'swiftcore[track]'",
            ) from err
        self._client: Any = boto3.client("s3")
        self._failures = (Boto3Error, BotoCoreError, ClientError)
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, None when it is not there."""
        try:
            with self._reported():
                head = self._client.head_object(Bucket=self._bucket, Key=self._name(key))
        except FileNotFoundError:
            return None
        return head["ContentLength"]

    def put(self, key: str, source: Path) -> None:
        """Upload a file; S3 shows it when it is whole."""
        with self._reported():
            self._client.upload_file(str(source), self._bucket, self._name(key))

    def get(self, key: str, target: Path) -> None:
        """Download an object."""
        with self._reported():
            self._client.download_file(self._bucket, self._name(key), str(target))

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the names below a prefix."""
        start = len(self._prefix) + 1 if self._prefix else 0
        with self._reported():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._name(prefix)
            )
            found = [item["Key"][start:] for page in pages for item in page.get("Contents", [])]
        yield from found

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Say whether a failure means absent, refused, or away for the moment."""
        try:
            yield
        except self._failures as err:
            codes = _s3_codes(err)
            if codes & _ABSENT:
                raise FileNotFoundError(f"s3://{self._bucket}/{self._prefix}") from err
            refused = codes & _REFUSED or type(err).__name__ == "NoCredentialsError"
            kind = EnvironmentMissing if refused else TransientError
            raise kind(
                "The S3 remote did not answer as expected.",
                where=f"s3://{self._bucket}/{self._prefix}",
                found=f"{type(err).__name__}: {err}",
                expected="a reachable bucket and valid keys in the environment",
                do="check AWS_ENDPOINT_URL, the bucket and the AWS keys, then repeat the command",
            ) from err


def _s3_codes(err: BaseException | None) -> set[str]:
    """Return the error codes of a failure and its causes; boto3 wraps what botocore raised."""
    codes = set()
    while err is not None:
        codes.add(str(getattr(err, "response", {}).get("Error", {}).get("Code", "")))
        err = err.__cause__ or err.__context__
    return codes


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
