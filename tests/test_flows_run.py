"""`swift run` as a person meets it: real processes, real stages, a real endpoint."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.prefect_api import latest_flow_run
from tests.roads import REPO, SWIFT, swift_here, tiny_recipes

pytestmark = pytest.mark.road


@pytest.fixture(scope="module")
def project(tmp_path_factory, finished_store, empty_mlflow, empty_prefect) -> Path:
    """A project folder whose stages are finished; its flows share one Prefect database."""
    folder = tmp_path_factory.mktemp("project")
    tiny_recipes(folder)
    shutil.copytree(finished_store, folder / "store")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    shutil.copytree(empty_prefect, folder / ".swift/prefect")
    yield folder
    command(folder, "deploy", "--stop", "--store", folder / "store")


def environment() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    return {**inherited, "PYTHONPATH": f"{REPO}:{os.environ.get('PYTHONPATH', '')}"}


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SWIFT, *map(str, arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def start(folder: Path, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    log = (folder / f"log-{time.time_ns()}.txt").open("w+")
    return subprocess.Popen(
        [*SWIFT, *map(str, arguments)],
        cwd=folder,
        env=environment() | variables,
        stdout=log,
        stderr=log,
    )


@pytest.fixture
def reports_to(monkeypatch, prefect_api) -> str:
    """The address of a Prefect API; flows run in this process report to it."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return prefect_api


def states(folder: Path) -> list[tuple[str, str]]:
    """Return name and state of each flow run of which no server but the run's own has heard."""
    with sqlite3.connect(folder / ".swift/prefect/prefect.db") as db:
        return db.execute("SELECT name, state_name FROM flow_run ORDER BY created").fetchall()


def test_wrong_recipe_fails_before_prefect_starts(tmp_path):
    tiny_recipes(tmp_path)
    done = command(tmp_path, "run", "recipes/tiny.yaml", "--set", "train.lora_rnak=4")
    assert done.returncode == 2
    assert "lora_rank" in done.stderr
    assert not (tmp_path / ".swift").exists()


def test_whole_road_is_reused_registered_served_and_shown(project, reports_to):
    import httpx

    done = command(project, "run", "recipes/tiny.yaml", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert [step["reused"] for step in summary["steps"]] == [True] * 10
    assert summary["version"] == "tiny@1"
    assert summary["gate"]["passed"] is True
    assert set(summary["candidates"]) == {"base", "adapter", "merged", "quantized"}
    answer = httpx.get(f"{summary['endpoint']['url']}/v1/models", timeout=20)
    assert answer.status_code == 200

    assert ("road recipes/tiny.yaml", "Completed") in states(project)
    with sqlite3.connect(project / ".swift/prefect/prefect.db") as db:
        tasks = dict(db.execute("SELECT name, state_name FROM task_run").fetchall())
    assert tasks["train tiny"] == "Cached"

    again = swift_here("run", "recipes/tiny.yaml", cwd=project)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "reused" in again.stdout
    assert summary["endpoint"]["url"] in again.stdout
    assert "swift deploy --stop" in again.stdout
    assert latest_flow_run().state_name == "Completed"


def test_refused_gate_is_exit_code_4_and_keeps_the_champion(project, reports_to):
    refused = ("--set", "deploy.gate.min_value=0.99")
    done = swift_here("run", "recipes/tiny.yaml", *refused, "--json", cwd=project)
    assert done.returncode == 4, done.stderr[-3000:]
    assert json.loads(done.stdout)["error"] == "GateRefused"
    assert "Traceback" not in done.stderr
    assert latest_flow_run().state_name == "Failed"


def with_long_training(folder: Path) -> None:
    """Make the recipe's training long enough to be interrupted."""
    path = folder / "recipes/tiny.yaml"
    values = yaml.safe_load(path.read_text())
    values["train"]["max_steps"] = 100_000
    path.write_text(yaml.safe_dump(values))


@pytest.fixture
def long_road(tmp_path, finished_store, empty_mlflow) -> Path:
    """A project folder whose base is finished, and whose training takes long."""
    tiny_recipes(tmp_path)
    shutil.copytree(finished_store, tmp_path / "store")
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    with_long_training(tmp_path)
    return tmp_path


def test_ctrl_c_in_training_ends_every_process(long_road, empty_prefect):
    shutil.copytree(empty_prefect, long_road / ".swift/prefect")
    interrupt_in_training(long_road, signal.SIGINT)
    assert dict(states(long_road))["road recipes/tiny.yaml"] == "Cancelled"


def test_sigterm_in_training_ends_every_process_of_a_run_that_a_server_knows(
    long_road, prefect_api
):
    interrupt_in_training(long_road, signal.SIGTERM, PREFECT_API_URL=prefect_api)
    assert latest_flow_run().state_name == "Cancelled"


def interrupt_in_training(folder: Path, number: signal.Signals, **variables: str) -> None:
    """Start a run, send a signal when it trains, and look at what it leaves."""
    run = start(folder, "run", "recipes/tiny.yaml", **variables)

    deadline = time.monotonic() + 240
    while not (wanted := list(folder.glob("store/in-progress/*/work/metrics.jsonl"))):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert wanted
    family = psutil.Process(run.pid).children(recursive=True)
    assert any("swiftcore.training.worker" in " ".join(p.cmdline()) for p in family)
    run.send_signal(number)
    assert run.wait(120) == 130
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    with sqlite3.connect(folder / "mlflow.db") as db:
        ended = dict(db.execute("SELECT name, status FROM runs").fetchall())
        assert ended["tiny/train"] == "KILLED"
        assert db.execute("SELECT count(*) FROM metrics WHERE key = 'loss'").fetchone()[0] > 0


def test_two_identical_runs_train_once_and_register_one_version(
    tmp_path, finished_store, empty_mlflow
):
    tiny_recipes(tmp_path)
    shutil.copytree(finished_store, tmp_path / "store")
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    (adapter,) = (tmp_path / "store/train").glob("tiny-*")
    shutil.rmtree(adapter)
    runs = [start(tmp_path, "run", "recipes/tiny.yaml") for _ in range(2)]
    try:
        assert [run.wait(400) for run in runs] == [0, 0]
        with sqlite3.connect(tmp_path / "mlflow.db") as db:
            assert db.execute("SELECT count(*) FROM model_versions").fetchone()[0] == 1
        assert len(list((tmp_path / "store/train").glob("tiny-*"))) == 1
        assert not (tmp_path / "store/damaged").exists()
    finally:
        command(tmp_path, "deploy", "--stop", "--store", tmp_path / "store")
