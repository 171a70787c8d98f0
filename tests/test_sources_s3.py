"""Objects of a real S3 server on loopback: fetched once, with digests, by key or by prefix."""

import hashlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from swiftcore.data import source_files
from swiftcore.data.sources import s3 as s3_module
from swiftcore.data.sources.s3 import fetch_s3
from swiftcore.errors import DataError, EnvironmentMissing, TransientError, UsageError
from swiftcore.recipe.sections import DataSection

ROWS = b'{"text": "a"}\n' * 1000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, "the S3 server did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SWIFTCORE_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    client = boto3.client("s3")
    client.create_bucket(Bucket="team")
    client.put_bucket_versioning(Bucket="team", VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket="team", Key="sets/b.jsonl", Body=ROWS, ChecksumAlgorithm="SHA256")
    client.put_object(Bucket="team", Key="sets/deep/a.csv", Body=b"text\na\n")
    client.put_object(Bucket="team", Key="sets/README.md", Body=b"# set")
    return client


def test_an_object_is_fetched_once_with_its_digests(s3):
    (first,) = fetch_s3("s3://team/sets/b.jsonl")
    assert first.path.read_bytes() == ROWS
    digest = hashlib.sha256(ROWS).hexdigest()
    assert first.provenance["sha256"] == digest
    assert first.provenance["etag"] == f'"{hashlib.md5(ROWS).hexdigest()}"'
    assert set(first.provenance) >= {"url", "version_id"}
    inode = first.path.stat().st_ino
    (second,) = fetch_s3("s3://team/sets/b.jsonl", sha256=digest)
    assert second.path.stat().st_ino == inode
    with pytest.raises(DataError, match="not the expected one"):
        fetch_s3("s3://team/sets/b.jsonl", sha256="0" * 64)


def test_an_object_that_changed_is_fetched_again(s3):
    fetch_s3("s3://team/sets/b.jsonl")
    s3.put_object(Bucket="team", Key="sets/b.jsonl", Body=b'{"text": "new"}\n')
    (found,) = fetch_s3("s3://team/sets/b.jsonl")
    assert found.path.read_bytes() == b'{"text": "new"}\n'


def test_an_object_that_breaks_off_goes_on_where_it_stopped(s3, monkeypatch):
    from botocore.exceptions import ReadTimeoutError

    class Broken:
        def __init__(self, stream) -> None:
            self._stream, self._left = stream, 5000

        def read(self, size: int) -> bytes:
            if not self._left:
                raise ReadTimeoutError(endpoint_url="http://127.0.0.1")
            self._left = 0
            return self._stream.read(5000)

        def close(self) -> None:
            self._stream.close()

    starts: list[int] = []
    opened = s3_module._Bucket.open

    def flaky(self, key, start, head, etag):
        starts.append(start)
        answer = opened(self, key, start, head, etag)
        if len(starts) == 1:
            answer.body._stream = Broken(answer.body._stream)
        return answer

    monkeypatch.setattr(s3_module._Bucket, "open", flaky)
    (found,) = fetch_s3("s3://team/sets/b.jsonl")
    assert found.path.read_bytes() == ROWS
    assert starts == [0, 5000]


def test_a_prefix_stands_for_its_data_files_in_order(s3):
    for entry in ("s3://team/sets", "s3://team/sets/#5"):
        files = source_files(DataSection(dataset=[entry]))
        assert [file.name for file in files] == [
            "s3://team/sets/b.jsonl",
            "s3://team/sets/deep/a.csv",
        ]
    with pytest.raises(UsageError, match="prefix has no digest"):
        fetch_s3("s3://team/sets", sha256="0" * 64)


def test_offline_takes_what_is_here_and_fails_at_once_for_the_rest(s3, monkeypatch):
    fetched = fetch_s3("s3://team/sets/")
    monkeypatch.setenv("SWIFTCORE_OFFLINE", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert fetch_s3("s3://team/sets/") == fetched
    assert [found.path for found in fetch_s3("s3://team/sets/b.jsonl")] == [fetched[0].path]
    with pytest.raises(EnvironmentMissing) as caught:
        fetch_s3("s3://team/sets/c.jsonl")
    assert "b.jsonl" in (caught.value.expected or "")


def test_what_is_not_there_is_said(s3):
    with pytest.raises(DataError, match="no object and no data file"):
        fetch_s3("s3://team/none.jsonl")
    with pytest.raises(DataError, match="no such bucket"):
        fetch_s3("s3://no-such-bucket/a.jsonl")
    with pytest.raises(UsageError, match="no S3 address"):
        fetch_s3("s3://")


def test_a_server_that_is_away_is_worth_another_try(s3, monkeypatch):
    monkeypatch.setattr("swiftcore.data.sources.download._WAITS_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TransientError):
        fetch_s3("s3://team/sets/b.jsonl")
