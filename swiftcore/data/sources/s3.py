"""Objects and prefixes of S3 (`s3://bucket/key`), fetched into the cache with their digests.

boto3 reads endpoint and keys from the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...).
"""

import base64
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftcore.data.readers.files import DATA_SUFFIXES, data_suffix
from swiftcore.data.sources.cache import ContentCache, Fetched, is_offline, place_key
from swiftcore.data.sources.download import TIMEOUT_SECONDS, Answer, Away, download
from swiftcore.data.sources.fetch import not_here
from swiftcore.errors import DataError, EnvironmentMissing, TransientError, UsageError
from swiftcore.progress import Progress

_ABSENT = {"404", "NoSuchKey", "NotFound"}
_NO_BUCKET = {"NoSuchBucket"}
_BUSY = {
    *("500", "502", "503", "504", "InternalError", "SlowDown", "ServiceUnavailable"),
    *("RequestTimeout", "RequestLimitExceeded", "Throttling", "ThrottlingException"),
}
_MD5_TAG = re.compile(r'"([0-9a-f]{32})"')
_CHANGED = {"412", "PreconditionFailed"}


def fetch_s3(
    url: str,
    *,
    sha256: str | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
) -> list[Fetched]:
    """Return the object at `s3://bucket/key`, or the data files below it, sorted by key.

    Args:
        url: bucket and key, or a prefix that ends at a `/` or stands for a folder.
        sha256: digest the object must have; not for prefixes.
        offline: use what is here and ask nobody; default: as the environment says.
        progress: told the bytes that are here.

    Raises:
        DataError: nothing is there, or it is not the expected object.
        EnvironmentMissing: boto3 or keys are missing, access is refused, or offline and not
            fetched before.
        TransientError: the server is away.
        UsageError: the address has no bucket, or a prefix has a digest.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise UsageError("this is no S3 address", where=url, expected="s3://bucket/key")
    if is_offline() if offline is None else offline:
        return _fetched_before(url, sha256)
    place = _Bucket(bucket, url)
    if key and not key.endswith("/"):
        head = place.head(key)
        if head is not None:
            return [_fetch_object(place, key, head, sha256, progress)]
    keys = place.data_keys(key and key.rstrip("/") + "/")
    if sha256 is not None:
        raise UsageError("a prefix has no digest of its own", where=url, do="name one object")
    files = []
    for name in keys:
        head = place.head(name)
        if head is not None:
            files.append(_fetch_object(place, name, head, None, progress))
    ContentCache().note(place_key(url), {"url": url, "keys": "\n".join(keys)})
    return files


def _fetch_object(
    place: "_Bucket", key: str, head: dict[str, Any], sha256: str | None, progress: Progress | None
) -> Fetched:
    address = f"s3://{place.name}/{key}"
    cache, slot, facts = ContentCache(), place_key(address), _facts(address, head)
    with cache.lock(slot):
        known = cache.noted(slot)
        path = cache.find(known.get("sha256", ""), facts["name"])
        unchanged = all(known.get(name) == value for name, value in facts.items())
        if path is not None and unchanged and sha256 in (None, known["sha256"]):
            return Fetched(path, address, _provenance(known))

        def ask(start: int, validator: str) -> Answer:
            # A part of another content is of no use: begin again.
            start = start if validator == facts["etag"] else 0
            return place.open(key, start, head, facts["etag"])

        part, found = download(ask, cache, slot, address, sha256=sha256, progress=progress)
        path = cache.keep(part, found, facts["name"])
        facts["sha256"] = found
        cache.note(slot, facts)
        return Fetched(path, address, _provenance(facts))


def _fetched_before(url: str, sha256: str | None) -> list[Fetched]:
    cache = ContentCache()
    known = cache.noted(place_key(url))
    bucket = url.removeprefix("s3://").partition("/")[0]
    if known.get("keys"):
        addresses = [f"s3://{bucket}/{key}" for key in known["keys"].splitlines()]
    else:
        addresses = [url]
    files = []
    for address in addresses:
        facts = cache.noted(place_key(address))
        path = cache.find(sha256 or facts.get("sha256", ""), facts.get("name", ""))
        if path is None or sha256 not in (None, facts.get("sha256")):
            raise not_here(cache, address)
        files.append(Fetched(path, address, _provenance(facts)))
    return files


def _facts(address: str, head: dict[str, Any]) -> dict[str, str]:
    name = re.sub(r"[^\w.-]", "_", address.rpartition("/")[2]).lstrip(".")[-120:] or "file"
    facts = {"url": address, "name": name, "etag": str(head.get("ETag", ""))}
    if head.get("VersionId"):
        facts["version_id"] = str(head["VersionId"])
    if head.get("ChecksumSHA256"):
        facts["checksum_sha256"] = str(head["ChecksumSHA256"])
    return facts


def _provenance(facts: dict[str, str]) -> dict[str, str]:
    names = ("url", "etag", "version_id", "checksum_sha256", "sha256")
    return {name: facts[name] for name in names if facts.get(name)}


def _digests(head: dict[str, Any]) -> dict[str, str]:
    """Return the digests of the whole object; parts and keys of their own hash something else."""
    digests: dict[str, str] = {}
    checksum = str(head.get("ChecksumSHA256") or "")
    if checksum and "-" not in checksum and head.get("ChecksumType") != "COMPOSITE":
        digests["sha256"] = base64.b64decode(checksum).hex()
    tag = _MD5_TAG.fullmatch(str(head.get("ETag", "")))
    encrypted = str(head.get("ServerSideEncryption") or "").startswith("aws:kms")
    if tag and not encrypted and not head.get("SSECustomerAlgorithm"):
        digests["md5"] = tag.group(1)
    return digests


class _Body:
    """The bytes of an object; what botocore raises while they come may pass."""

    def __init__(self, stream: Any, failures: tuple[type[Exception], ...]) -> None:
        self._stream, self._failures = stream, failures

    def read(self, size: int) -> bytes:
        """Return up to so many bytes."""
        try:
            return self._stream.read(size)
        except self._failures as err:
            raise Away(str(err)) from err

    def close(self) -> None:
        """Drop the connection."""
        self._stream.close()


class _Bucket:
    """One bucket.

    Args:
        name: its name.
        url: the entry, for messages.
    """

    def __init__(self, name: str, url: str) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as err:
            raise EnvironmentMissing(
                "S3 needs boto3, which is not installed",
                where=url,
                do="pip install 'swiftcore[sources]'",
            ) from err
        settings = Config(
            connect_timeout=10,
            read_timeout=TIMEOUT_SECONDS,
            retries={"max_attempts": 3, "mode": "standard"},
        )
        self.name = name
        self._url = url
        self._failures = (BotoCoreError, ClientError)
        with self._reported():
            self._client: Any = boto3.client("s3", config=settings)

    def head(self, key: str) -> dict[str, Any] | None:
        """Return what S3 says of an object, None when there is none."""
        try:
            with self._reported():
                return self._client.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        except FileNotFoundError:
            return None

    def data_keys(self, prefix: str) -> list[str]:
        """Return the keys of the data files below a prefix.

        Raises:
            DataError: there is none.
        """
        found, others = [], []
        with self._reported():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=prefix
            )
            for item in (item for page in pages for item in page.get("Contents", [])):
                parts = Path(item["Key"][len(prefix) :]).parts
                hidden = any(part.startswith((".", "_")) for part in parts)
                is_data = not hidden and data_suffix(Path(item["Key"])) is not None
                (found if is_data else others).append(item["Key"])
        if not found:
            raise DataError(
                "no object and no data file is at this address",
                where=self._url,
                found=", ".join(others[:8]) or f"nothing below s3://{self.name}/{prefix}",
                expected="an object, or objects ending in " + ", ".join(DATA_SUFFIXES),
                do="correct the key",
            )
        return sorted(found)

    def open(self, key: str, start: int, head: dict[str, Any], etag: str) -> Answer:
        """Open an object from a byte on, as long as it still is the one that `head` describes."""
        options: dict[str, Any] = {"IfMatch": etag} if etag else {}
        if start:
            options["Range"] = f"bytes={start}-"
        if head.get("VersionId"):
            options["VersionId"] = head["VersionId"]
        with self._reported():
            answer = self._client.get_object(Bucket=self.name, Key=key, **options)
        body = _Body(answer["Body"], self._failures)
        return Answer(body, start, head["ContentLength"], etag, _digests(head))

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Say whether a failure means absent, refused, or away for the moment."""
        try:
            yield
        except self._failures as err:
            code = str(getattr(err, "response", {}).get("Error", {}).get("Code", ""))
            found = f"{type(err).__name__}: {err}"
            if code in _ABSENT:
                raise FileNotFoundError(self._url) from err
            if code in _CHANGED:
                raise DataError(
                    "the object changed while it was fetched", where=self._url, do="run again"
                ) from err
            if code in _NO_BUCKET:
                raise DataError("there is no such bucket", where=self._url, found=code) from err
            if code in _BUSY:
                raise Away(found) from err
            away = not code and type(err).__name__ not in ("NoCredentialsError", "NoRegionError")
            kind = TransientError if away else EnvironmentMissing
            raise kind(
                "S3 did not answer as expected",
                where=self._url,
                found=found,
                expected="a reachable bucket and valid keys in the environment",
                do="check AWS_ENDPOINT_URL and the AWS keys, then repeat the command",
            ) from err
