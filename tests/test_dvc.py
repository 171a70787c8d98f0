"""`dvc repro` is the third door: the same stages, the same fingerprints, nothing twice."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from swiftcore.artifacts import Store, read_record
from tests.roads import REPO, swift, tiny_recipes

pytestmark = pytest.mark.road
BIN = Path(sys.executable).parent


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]] if command[0] == "dvc" else list(command),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, finished_store: Path) -> Path:
    """A git and DVC repository with our dvc.yaml on tiny recipes, after one `dvc repro`.

    The store has what another door has made, but for the merged model, which `dvc repro` makes.
    """
    folder = tmp_path_factory.mktemp("dvc")
    tiny_recipes(folder, base_name="nano_base", name="demo")
    for recipe in (folder / "recipes").glob("*.yaml"):
        text = recipe.read_text().replace(f"{folder}/store", ".swift/store")
        recipe.write_text(text.replace(f"{folder}/data", "data/demo").replace(f"{folder}/", ""))
    (folder / "data").rename(folder / "rows")
    (folder / "params.yaml").symlink_to("recipes/demo.yaml")
    # The generator's place is taken by a copy of the tiny rows; every other stage is ours.
    pipeline = yaml.safe_load((REPO / "dvc.yaml").read_text())
    pipeline["stages"]["demo_data"] |= {"cmd": "cp rows/* data/demo/", "deps": ["rows"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    (folder / "data/demo").mkdir(parents=True)
    shutil.copytree(REPO / "swiftcore/stages", folder / "swiftcore/stages")
    shutil.copytree(finished_store, folder / ".swift/store", ignore=shutil.ignore_patterns("merge"))
    for command in (
        ("git", "init", "-q"),
        ("dvc", "init", "-q"),
        ("git", "add", "-A"),
        ("git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "t"),
    ):
        run(folder, *command)
    run(folder, "dvc", "repro")
    return folder


def test_second_repro_does_nothing(project: Path) -> None:
    again = run(project, "dvc", "repro")
    assert "Running stage" not in again.stdout
    assert "didn't change" in again.stdout


def test_repro_and_the_command_line_give_the_same_fingerprints(project: Path) -> None:
    planned = json.loads(swift("plan", "recipes/demo.yaml", "--json", cwd=project).stdout)
    assert {step["action"] for step in planned} == {"reuse"}
    by_label = {step["label"]: step["fingerprint"] for step in planned}
    for stage in ("ingest", "template", "train", "merge", "quantize", "evaluate"):
        record = read_record(project / "artifacts" / stage)
        assert record.fingerprint == by_label[f"demo/{stage}"]
    assert read_record(project / "artifacts/base").fingerprint == by_label["nano_base/train"]


def test_metrics_and_plots_show_the_evaluation_and_the_loss(project: Path) -> None:
    metrics = json.loads(run(project, "dvc", "metrics", "show", "--json").stdout)
    shown = json.dumps(metrics)
    assert '"merged"' in shown
    assert "Act.EM" in shown
    run(project, "dvc", "plots", "show", "--out", "plots")
    page = (project / "plots/index.html").read_text()
    assert "loss" in page


def test_changed_parameter_reruns_from_its_stage_on(project: Path) -> None:
    recipe = project / "recipes/demo.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("lora_rank: 4", "lora_rank: 2"))
    status = run(project, "dvc", "status").stdout
    recipe.write_text(text)
    assert "train:" in status
    assert "ingest:" not in status
    assert "template:" not in status


def test_lost_store_is_filled_from_what_dvc_has(project: Path) -> None:
    shutil.rmtree(project / ".swift/store/merge")
    done = swift("stage", "merge", "params.yaml", "--out", "artifacts/again", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "reused   demo/merge" in done.stderr
    assert len(list(Store(project / ".swift/store").artifacts())) >= 10


def test_committed_lock_matches_the_pipeline() -> None:
    lock = yaml.safe_load((REPO / "dvc.lock").read_text())
    pipeline = yaml.safe_load((REPO / "dvc.yaml").read_text())
    assert set(lock["stages"]) == set(pipeline["stages"])
    rows = {out["path"]: out["md5"] for out in lock["stages"]["demo_data"]["outs"]}
    for path, digest in rows.items():
        assert hashlib.md5((REPO / path).read_bytes()).hexdigest() == digest, path
