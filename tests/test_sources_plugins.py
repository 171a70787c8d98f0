"""Sources behind DVC and MLflow, with a real repository, a real remote and MLflow on SQLite."""

import hashlib
import json
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from swiftcore.artifacts import Store, make
from swiftcore.data import source_files
from swiftcore.data.sources import plugins
from swiftcore.errors import DataError, EnvironmentMissing, UsageError
from swiftcore.recipe.sections import DataSection
from tasks.data_sources import dvc_source, mlflow_source
from tests.making import identity, writes

ROWS = b'{"text": "a"}\n{"text": "b"}\n'
MD5 = hashlib.md5(ROWS).hexdigest()


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-ins of this checkout, whatever is installed."""
    points = [
        EntryPoint("dvc", "tasks.data_sources:dvc_source", plugins.GROUP),
        EntryPoint("mlflow", "tasks.data_sources:mlflow_source", plugins.GROUP),
    ]

    def found(group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == plugins.GROUP
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(plugins, "entry_points", found)


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, check=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository that tracks a file and a folder, pushed to a local remote."""
    folder = tmp_path_factory.mktemp("dvc")
    (folder / "data/many").mkdir(parents=True)
    (folder / "data/rows.jsonl").write_bytes(ROWS)
    (folder / "data/many/a.jsonl").write_bytes(ROWS)
    (folder / "data/many/b.jsonl").write_bytes(ROWS * 2)
    from dvc.repo import Repo

    _run(folder, "git", "init", "-q")
    with Repo.init(str(folder)) as repo:
        config = "[core]\nremote = here\n['remote \"here\"']\nurl = ../remote\n"
        (folder / ".dvc/config").write_text(config)
    with Repo(str(folder)) as repo:
        repo.add([str(folder / "data/rows.jsonl"), str(folder / "data/many")])
        repo.push()
    _run(folder, "git", "add", "-A", "data", ".dvc")
    _run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "t")
    return folder


@pytest.fixture
def checkout(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the repository without data and without cache: only pointers and remote."""
    folder = tmp_path / "copy"
    shutil.copytree(repository, folder)
    shutil.rmtree(folder / ".dvc/cache")
    shutil.rmtree(folder / "data/many")
    (folder / "data/rows.jsonl").unlink()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return folder


def _head(folder: Path) -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.check_output(command, cwd=folder, text=True).strip()


def test_missing_tracked_files_are_pulled_with_revision_and_md5(checkout, plugged):
    section = DataSection(dataset=["data/rows.jsonl#1", "data/many"])
    files = source_files(section)
    assert [(file.name, file.path.read_bytes()) for file in files] == [
        ("data/rows.jsonl", ROWS),
        ("data/many/a.jsonl", ROWS),
        ("data/many/b.jsonl", ROWS * 2),
    ]
    assert files[0].provenance == {
        "dvc_revision": _head(checkout),
        "dvc_pointer": "data/rows.jsonl.dvc",
        "dvc_md5": MD5,
    }
    assert files[1].provenance["dvc_md5"] == MD5
    assert files[1].provenance["dvc_pointer"] == "data/many.dvc"


def test_one_file_of_a_tracked_folder_is_pulled_alone(checkout):
    path, origin = dvc_source(Path("data/many/b.jsonl")) or pytest.fail("not tracked")
    assert path.read_bytes() == ROWS * 2
    assert origin["dvc_md5"] == hashlib.md5(ROWS * 2).hexdigest()


def test_an_altered_file_is_said_to_be_altered_and_a_changed_pointer_uncommitted(checkout):
    dvc_source(Path("data/rows.jsonl"))
    Path("data/rows.jsonl").write_bytes(ROWS * 3)
    _, origin = dvc_source(Path("data/rows.jsonl")) or pytest.fail("not tracked")
    assert origin["dvc_state"] == "altered"
    assert origin["md5"] == hashlib.md5(ROWS * 3).hexdigest()
    Path("data/rows.jsonl.dvc").write_text(Path("data/rows.jsonl.dvc").read_text() + "\n")
    _, origin = dvc_source(Path("data/rows.jsonl")) or pytest.fail("not tracked")
    assert origin["dvc_revision"] == f"{_head(checkout)}+changes"


def test_what_no_remote_has_is_an_error_with_the_command(checkout):
    shutil.rmtree(checkout / "remote")
    with pytest.raises(EnvironmentMissing, match="could not bring") as caught:
        dvc_source(Path("data/rows.jsonl"))
    assert "dvc pull data/rows.jsonl" in (caught.value.do or "")


def test_offline_no_remote_is_asked(checkout, monkeypatch):
    monkeypatch.setenv("SWIFTCORE_OFFLINE", "1")
    with pytest.raises(EnvironmentMissing, match="could not bring"):
        dvc_source(Path("data/rows.jsonl"))


def test_outputs_of_a_pipeline_are_known_by_its_lock_file(checkout, plugged):
    Path("out").mkdir()
    Path("out/made.jsonl").write_bytes(ROWS)
    lock = "schema: '2.0'\nstages:\n  make:\n    cmd: make\n    outs:\n"
    Path("dvc.lock").write_text(f"{lock}    - path: out/made.jsonl\n      md5: {MD5}\n")
    (file,) = source_files(DataSection(dataset=["out/made.jsonl"]))
    assert file.provenance["dvc_md5"] == MD5
    assert file.provenance["dvc_pointer"] == "dvc.lock"


def test_files_that_dvc_does_not_track_have_no_such_origin(checkout, plugged):
    Path("plain.jsonl").write_bytes(ROWS)
    (file,) = source_files(DataSection(dataset=["plain.jsonl"]))
    assert file.provenance == {}
    assert dvc_source(Path("plain.jsonl")) is None


def test_nothing_of_dvc_is_imported_for_them():
    script = (
        "import sys; from pathlib import Path; from swiftcore.data.sources.plugins import tracked; "
        "tracked(Path('/tmp/plain.jsonl')); print('dvc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def logged(empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that logs a dataset of a run and returns its reference."""
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput

    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    client = MlflowClient(tracking_uri=uri)

    def log(digest: str, source: dict | str | None = None, kind: str = "local") -> str:
        run_id = client.create_run("0").info.run_id
        place = source or {"uri": str(tmp_path / "rows.jsonl")}
        text = place if isinstance(place, str) else json.dumps(place)
        client.log_inputs(run_id, [DatasetInput(Dataset("team/rows", digest, kind, text))])
        return f"mlflow:/runs/{run_id}/team/rows"

    return log


def test_a_logged_dataset_is_its_source_with_the_digest_checked(logged, plugged):
    sha256 = hashlib.sha256(ROWS).hexdigest()
    address = logged(sha256[:36])
    (file,) = source_files(DataSection(dataset=[f"{address}#1"]))
    assert file.path.read_bytes() == ROWS
    assert file.name == address
    assert file.spec.sample == 1
    assert file.provenance["mlflow_digest"] == sha256[:36]
    assert file.provenance["sha256"] == sha256
    mlflow_source(logged(MD5[:8]))


def test_a_dataset_of_our_own_runs_is_the_artifact_it_names(logged, tmp_path):
    store = Store(tmp_path / ".swift/store")
    made = make(store, identity("ingest"), writes("rows", "train.parquet")).artifact
    path, origin = mlflow_source(logged(made.digest[:36], made.label))
    assert path.read_text() == "rows"
    assert origin["sha256"] == hashlib.sha256(b"rows").hexdigest()
    with pytest.raises(DataError, match="not what the run logged"):
        mlflow_source(logged("0" * 36, made.label))


def test_a_digest_that_mlflow_made_of_a_table_is_checked_too(logged, tmp_path):
    import mlflow.data
    import pandas as pd

    table = pd.read_json(tmp_path / "rows.jsonl", lines=True)
    digest = mlflow.data.from_pandas(table).digest  # type: ignore[attr-defined]
    path, _ = mlflow_source(logged(digest))
    assert path.read_bytes() == ROWS


@pytest.mark.parametrize("digest", ["0" * 8, "a"])
def test_another_content_is_refused(logged, digest):
    with pytest.raises(DataError, match="not what the run logged"):
        mlflow_source(logged(digest))


def test_what_can_not_be_found_or_fetched_is_said(logged):
    with pytest.raises(DataError, match="gone"):
        mlflow_source(logged(MD5, {"uri": "/no/such.jsonl"}))
    with pytest.raises(EnvironmentMissing, match="not fetched here"):
        mlflow_source(logged(MD5[:9], {"path": "org/set"}, "hugging_face"))
    with pytest.raises(UsageError, match="no such dataset") as caught:
        mlflow_source(logged(MD5[:10]) + "x")
    assert "team/rows" in (caught.value.expected or "")
    with pytest.raises(UsageError, match="no such run"):
        mlflow_source("mlflow:/runs/none/rows")
    with pytest.raises(UsageError, match="can't be read"):
        mlflow_source("mlflow:/rows")
