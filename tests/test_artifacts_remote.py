"""Copies of artifacts in a folder and in a real S3 server on loopback."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from swiftcore.artifacts import Artifact, Store
from swiftcore.artifacts import make as make_artifact
from swiftcore.artifacts.remote import open_remote, pull, push
from swiftcore.errors import (
    ArtifactDamaged,
    EnvironmentMissing,
    StoreFull,
    TransientError,
    UsageError,
)
from tests.making import identity, make_demo, must_not_run, wait_until, writes


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert server.poll() is None, "the S3 server did not start"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, seconds=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = tmp_path.name.replace("_", "-").lower()[:60].strip("-") + "-b"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/team/artifacts"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "remote")


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Store:
    return Store(tmp_path / "there")


@pytest.fixture
def artifact(here: Store) -> Artifact:
    def body(area):
        writes("weights", "model.bin")(area)
        return writes("more", "deep/er/notes.txt")(area)

    return make_artifact(here, identity(), body).artifact


def test_artifact_makes_the_round_trip(url: str, here: Store, there: Store, artifact: Artifact):
    assert push(here, artifact, open_remote(url)) == 2
    assert push(here, artifact, open_remote(url)) == 0
    pulled = pull(there, artifact.label, open_remote(url))
    assert pulled.record == artifact.record
    there.verify(pulled, thorough=True)
    assert (pulled.path / "deep/er/notes.txt").read_text() == "more"
    assert make_artifact(there, identity(), must_not_run).reused
    assert not list((there.root / "in-progress").iterdir())


@pytest.mark.parametrize("digits", [6, 12, 64])
def test_artifact_is_pulled_by_fingerprint_prefix(
    tmp_path: Path, here: Store, there: Store, artifact: Artifact, digits: int
):
    remote = open_remote(str(tmp_path / "remote"))
    push(here, artifact, remote)
    assert pull(there, artifact.fingerprint[:digits], remote).digest == artifact.digest


def test_half_push_is_invisible(url: str, here: Store, there: Store, artifact: Artifact):
    remote = open_remote(url)
    put, sent = remote.put, []

    def connection_lost(key: str, source: Path) -> None:
        if sent:
            raise ConnectionError("the line is dead")
        sent.append(key)
        put(key, source)

    remote.put = connection_lost  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        push(here, artifact, remote)
    with pytest.raises(UsageError, match="no such artifact"):
        pull(there, artifact.label, open_remote(url))
    assert push(here, artifact, open_remote(url)) == 1


def test_damaged_artifact_is_not_pushed(url: str, here: Store, artifact: Artifact):
    (artifact.path / "model.bin").write_text("altered")
    with pytest.raises(ArtifactDamaged):
        push(here, artifact, open_remote(url))
    assert list(open_remote(url).keys("")) == []


def overwrite(url: str, tmp_path: Path, prefix: str, text: str) -> str:
    remote = open_remote(url)
    key = next(key for key in remote.keys(prefix))
    altered = tmp_path / "altered"
    altered.write_text(text)
    remote.put(key, altered)
    return key


def assert_nothing_pulled(store: Store) -> None:
    assert list(store.artifacts()) == []


def test_tampered_blob_is_refused(
    url: str, here: Store, there: Store, artifact: Artifact, tmp_path: Path
):
    push(here, artifact, open_remote(url))
    key = overwrite(url, tmp_path, "blobs/", "tampered with")
    with pytest.raises(ArtifactDamaged, match=key) as raised:
        pull(there, artifact.label, open_remote(url))
    assert raised.value.exit_code == 3
    assert_nothing_pulled(there)


def test_missing_blob_is_refused(tmp_path: Path, here: Store, there: Store, artifact: Artifact):
    root = tmp_path / "remote"
    push(here, artifact, open_remote(str(root)))
    next(path for path in root.glob("blobs/*/*")).unlink()
    with pytest.raises(ArtifactDamaged, match="nothing was pulled"):
        pull(there, artifact.label, open_remote(str(root)))
    assert_nothing_pulled(there)
    assert push(here, artifact, open_remote(str(root))) == 1
    assert pull(there, artifact.label, open_remote(str(root))).digest == artifact.digest


def test_missing_s3_blob_is_refused(s3: str, here: Store, there: Store, artifact: Artifact):
    push(here, artifact, open_remote(s3))
    key = next(open_remote(s3).keys("blobs/"))
    bucket, _, prefix = s3.removeprefix("s3://").partition("/")
    boto3.client("s3").delete_object(Bucket=bucket, Key=f"{prefix}/{key}")
    with pytest.raises(ArtifactDamaged, match="nothing was pulled"):
        pull(there, artifact.label, open_remote(s3))


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../../x"])
def test_record_that_names_a_file_outside_is_refused(
    url: str, here: Store, there: Store, artifact: Artifact, tmp_path: Path, path: str
):
    push(here, artifact, open_remote(url))
    entry = replace(artifact.record.files[0], path=path)
    overwrite(url, tmp_path, "records/", replace(artifact.record, files=(entry,)).to_json())
    with pytest.raises(ArtifactDamaged):
        pull(there, artifact.label, open_remote(url))
    assert_nothing_pulled(there)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "changes",
    [{"stage": "../../etc"}, {"name": "../evil"}, {"fingerprint": "f" * 64}, {"config": {"a": 1}}],
)
def test_record_that_claims_to_be_something_else_is_refused(
    tmp_path: Path, here: Store, there: Store, artifact: Artifact, changes: dict
):
    url = str(tmp_path / "remote")
    push(here, artifact, open_remote(url))
    overwrite(url, tmp_path, "records/", replace(artifact.record, **changes).to_json())
    with pytest.raises(ArtifactDamaged):
        pull(there, artifact.label, open_remote(url))
    assert_nothing_pulled(there)


def test_record_under_another_records_name_is_refused(
    tmp_path: Path, here: Store, there: Store, artifact: Artifact
):
    remote = open_remote(str(tmp_path / "remote"))
    other = make_artifact(here, identity(other=1), writes("other")).artifact
    push(here, artifact, remote)
    push(here, other, remote)
    remote.put(f"records/{artifact.label}.json", other.path / "record.json")
    with pytest.raises(ArtifactDamaged):
        pull(there, artifact.label, remote)


def test_record_whose_digest_is_not_that_of_its_files_is_refused(
    tmp_path: Path, here: Store, there: Store, artifact: Artifact
):
    url = str(tmp_path / "remote")
    push(here, artifact, open_remote(url))
    overwrite(url, tmp_path, "records/", replace(artifact.record, digest="d" * 64).to_json())
    with pytest.raises(ArtifactDamaged, match="digest"):
        pull(there, artifact.label, open_remote(url))


def test_pull_without_room_is_refused_before_anything_travels(
    tmp_path: Path, here: Store, there: Store, artifact: Artifact
):
    url = str(tmp_path / "remote")
    push(here, artifact, open_remote(url))
    huge = replace(artifact.record.files[0], size=1 << 60)
    record = replace(artifact.record, files=(huge, *artifact.record.files[1:]))
    overwrite(url, tmp_path, "records/", record.to_json())
    with pytest.raises(StoreFull):
        pull(there, artifact.label, open_remote(url))


def test_unknown_reference_names_what_is_there(url: str, here: Store, artifact: Artifact):
    push(here, artifact, open_remote(url))
    with pytest.raises(UsageError, match=artifact.label):
        pull(here, "train/other-000000000000", open_remote(url))


def test_bucket_that_does_not_exist_is_an_environment_error(s3: str, here: Store):
    artifact = make_demo(here).artifact
    with pytest.raises(EnvironmentMissing) as raised:
        push(here, artifact, open_remote("s3://no-such-bucket-here/x"))
    assert raised.value.exit_code == 5


def test_s3_server_that_is_away_is_worth_another_try(
    s3: str, here: Store, monkeypatch: pytest.MonkeyPatch
):
    artifact = make_demo(here).artifact
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TransientError) as raised:
        push(here, artifact, open_remote(s3))
    assert raised.value.exit_code == 6


def test_folder_that_can_not_be_written_is_an_environment_error(tmp_path: Path, here: Store):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentMissing):
        push(here, make_demo(here).artifact, open_remote(str(tmp_path / "file" / "remote")))


def test_other_schemes_are_refused():
    with pytest.raises(UsageError, match="not supported"):
        open_remote("ftp://host/x")


def test_record_on_the_remote_is_readable_json(tmp_path: Path, here: Store, artifact: Artifact):
    root = tmp_path / "remote"
    push(here, artifact, open_remote(str(root)))
    record = json.loads((root / "records" / f"{artifact.label}.json").read_text())
    assert record["fingerprint"] == artifact.fingerprint
    assert not [path for path in root.rglob("*") if path.name.endswith(".tmp")]
    assert sorted(path.name for path in root.iterdir()) == ["blobs", "records"]
