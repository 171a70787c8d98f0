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

from tests.roads import REPO, SWIFT, tiny_recipes

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


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    log = (folder / f"log-{time.time_ns()}.txt").open("w+")
    return subprocess.Popen(
        [*SWIFT, *map(str, arguments)], cwd=folder, env=environment(), stdout=log, stderr=log
    )


def states(folder: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(folder / ".swift/prefect/prefect.db") as db:
        return db.execute("SELECT name, state_name FROM flow_run ORDER BY created").fetchall()


def test_wrong_recipe_fails_before_prefect_starts(tmp_path):
    tiny_recipes(tmp_path)
    done = command(tmp_path, "run", "recipes/tiny.yaml", "--set", "train.lora_rnak=4")
    assert done.returncode == 2
    assert "lora_rank" in done.stderr
    assert not (tmp_path / ".swift").exists()


def test_whole_road_is_reused_registered_served_and_shown(project):
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

    again = command(project, "run", "recipes/tiny.yaml")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "reused" in again.stdout
    assert summary["endpoint"]["url"] in again.stdout
    assert "swift deploy --stop" in again.stdout
    assert ("road recipes/tiny.yaml", "Completed") in states(project)
    with sqlite3.connect(project / ".swift/prefect/prefect.db") as db:
        tasks = dict(db.execute("SELECT name, state_name FROM task_run").fetchall())
    assert tasks["train tiny"] == "Cached"


def test_refused_gate_is_exit_code_4_and_keeps_the_champion(project):
    done = command(
        project, "run", "recipes/tiny.yaml", "--set", "deploy.gate.min_value=0.99", "--json"
    )
    assert done.returncode == 4, done.stderr[-3000:]
    assert json.loads(done.stdout)["error"] == "GateRefused"
    assert "Traceback" not in done.stderr
    assert states(project)[-2:][0][1] == "Failed"


def with_long_training(folder: Path) -> None:
    """Make the recipe's training long enough to be interrupted."""
    path = folder / "recipes/tiny.yaml"
    values = yaml.safe_load(path.read_text())
    values["train"]["max_steps"] = 100_000
    path.write_text(yaml.safe_dump(values))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_in_training_ends_every_process(
    tmp_path, finished_store, empty_mlflow, empty_prefect, number
):
    tiny_recipes(tmp_path)
    shutil.copytree(finished_store, tmp_path / "store")
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    shutil.copytree(empty_prefect, tmp_path / ".swift/prefect")
    with_long_training(tmp_path)
    run = start(tmp_path, "run", "recipes/tiny.yaml")

    deadline = time.monotonic() + 240
    while not (wanted := list(tmp_path.glob("store/in-progress/*/work/metrics.jsonl"))):
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
    assert dict(states(tmp_path))["road recipes/tiny.yaml"] == "Cancelled"
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
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
