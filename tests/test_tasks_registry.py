"""Registered models: verified before, one version a fingerprint, aliases with a way back."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from swiftcore.artifacts import Artifact, Identity, Produced, Store, make
from swiftcore.errors import ArtifactDamaged, TransientError, UsageError
from tasks.models_uri import find_version, resolve_models_uri
from tasks.registry import Registry


def make_model(store: Store, seed: int) -> Artifact:
    def body(area):
        (area.out / "config.json").write_text(json.dumps({"seed": seed}))
        (area.out / "nested").mkdir()
        (area.out / "nested/model.safetensors").write_bytes(bytes([seed]) * 1000)
        return Produced()

    return make(store, Identity("merge", 1, "demo", {"seed": seed}), body).artifact


def register(registry: Registry, artifact: Artifact, **tags: str):
    return registry.register("demo", artifact, experiment="demo", tags=tags)


@pytest.fixture
def store(tmp_path, monkeypatch, empty_mlflow) -> Store:
    """The default store of an empty project."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".swift").mkdir()
    shutil.copy(empty_mlflow, tmp_path / ".swift/mlflow.db")
    return Store(Path(".swift/store"))


@pytest.fixture
def registry(store) -> Registry:
    return Registry(store)


def test_version_points_at_a_logged_model_with_the_files(store, registry):
    from mlflow.artifacts import download_artifacts

    version = register(registry, make_model(store, 1), **{"data.sha256": "abc"})
    assert (version.version, version.reference) == ("1", "demo@1")
    found = registry.by_alias("demo", "challenger")
    assert found.tags["data.sha256"] == "abc"
    raw = registry._client.get_model_version("demo", "1")
    assert raw.source.startswith("models:/m-")
    uri = registry._client.get_model_version_download_uri("demo", "1")
    folder = Path(download_artifacts(artifact_uri=uri, tracking_uri=registry.uri))
    assert (folder / "nested/model.safetensors").read_bytes() == b"\x01" * 1000


def test_same_fingerprint_registered_twice_is_one_version(store, registry):
    first = register(registry, make_model(store, 1))
    again = register(registry, make_model(store, 1), **{"gate.report": "evaluate/demo-1"})
    other = register(registry, make_model(store, 2))
    assert (first.version, again.version, other.version) == ("1", "1", "2")
    assert registry.version("demo", "1").tags["gate.report"] == "evaluate/demo-1"


def _register_in_a_process(folder: str, start) -> None:
    import os

    os.chdir(folder)
    store = Store(Path(".swift/store"))
    artifact = make_model(store, 1)
    start.wait(60)
    register(Registry(store), artifact)


def test_two_identical_runs_register_one_version(store, registry):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [
        context.Process(target=_register_in_a_process, args=(str(Path.cwd()), start))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(registry._client.search_model_versions("name = 'demo'")) == 1


def test_altered_file_is_never_registered(store, registry):
    artifact = make_model(store, 1)
    (artifact.path / "nested/model.safetensors").write_bytes(b"\x02" * 1000)
    with pytest.raises(ArtifactDamaged, match=r"model\.safetensors"):
        register(registry, artifact)
    assert registry._client.search_registered_models() == []


def test_promotion_keeps_the_way_back(store, registry):
    for seed in (1, 2):
        register(registry, make_model(store, seed))
        registry.promote("demo", str(seed), reason="the gate passed")
    assert registry.by_alias("demo", "champion").version == "2"
    assert registry.by_alias("demo", "previous").version == "1"
    assert registry.by_alias("demo", "challenger") is None
    assert registry.version("demo", "2").tags["previous_champion"] == "1"

    assert registry.rollback("demo").version == "1"
    assert registry.by_alias("demo", "champion").version == "1"
    assert registry.by_alias("demo", "previous").version == "2"
    moves = [(e["action"], e["from"], e["to"]) for e in registry.journal("demo")]
    assert moves == [("promote", None, "1"), ("promote", "1", "2"), ("rollback", "2", "1")]


def test_promoting_the_champion_again_changes_nothing(store, registry):
    register(registry, make_model(store, 1))
    registry.promote("demo", "1", reason="first")
    registry.promote("demo", "1", reason="again")
    assert registry.by_alias("demo", "previous") is None
    assert len(registry.journal("demo")) == 1


def test_rollback_without_a_previous_version_says_so(store, registry):
    with pytest.raises(UsageError, match="no version to go back to"):
        registry.rollback("demo")
    register(registry, make_model(store, 1))
    registry.promote("demo", "1", reason="first")
    with pytest.raises(UsageError, match="no version to go back to"):
        registry.rollback("demo")


def test_models_uri_resolves_to_the_verified_artifact(store, registry):
    artifact = make_model(store, 1)
    register(registry, artifact)
    registry.promote("demo", "1", reason="first")
    assert resolve_models_uri("models:/demo@champion") == artifact.path
    assert resolve_models_uri("models:/demo/1") == artifact.path
    (artifact.path / "config.json").write_text("{}")
    with pytest.raises(ArtifactDamaged):
        resolve_models_uri("models:/demo@champion")


def test_models_uri_is_fetched_from_mlflow_when_the_store_has_it_no_more(store, registry):
    artifact = make_model(store, 1)
    register(registry, artifact)
    shutil.rmtree(artifact.path)
    folder = resolve_models_uri("models:/demo@challenger")
    assert folder != artifact.path
    assert (folder / "nested/model.safetensors").read_bytes() == b"\x01" * 1000


@pytest.mark.parametrize("uri", ["models:/demo", "models:/demo/x", "models:/", "models:/demo@"])
def test_unreadable_models_uri_is_explained(registry, uri):
    with pytest.raises(UsageError, match="can't be read"):
        find_version(registry, uri)


@pytest.mark.parametrize("uri", ["models:/none@champion", "models:/none/3"])
def test_unknown_model_is_a_usage_error(registry, uri):
    with pytest.raises(UsageError, match="No such model version"):
        find_version(registry, uri)


def test_registration_without_mlflow_is_transient_and_says_what_to_do(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError, match="MLflow does not answer") as caught:
        register(Registry(store), make_model(store, 1))
    assert caught.value.exit_code == 6
    assert "run the same command" in caught.value.do
