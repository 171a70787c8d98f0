"""What goes wrong in real life, and what must be left afterwards: one clear block, nothing lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from swiftcore.artifacts import Store
from tests.roads import REPO, SWIFT, swift, swift_here, tiny_recipes, write_recipe

pytestmark = pytest.mark.road
STAGES = ["ingest", "template", "train", "merge", "quantize", "evaluate"]


def change_recipe(path: Path, section: str, **values: object) -> None:
    recipe = yaml.safe_load(path.read_text())
    recipe.setdefault(section, {}).update(values)
    write_recipe(path, recipe)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SWIFT, *map(str, arguments)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fingerprint_of(recipe: Path, label: str) -> str:
    planned = json.loads(swift_here("plan", recipe, "--json").stdout)
    return next(step["fingerprint"] for step in planned if step["label"] == label)


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


def assert_one_clear_block(done: subprocess.CompletedProcess[str], exit_code: int) -> None:
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^  do: ", done.stderr, re.MULTILINE), done.stderr


def assert_everything_visible_is_whole(store: Path) -> None:
    for artifact in Store(store).artifacts():
        Store(store).verify(artifact, thorough=True)


def forget(store: Path, stage: str, name: str = "tiny") -> None:
    for folder in (store / stage).glob(f"{name}-*"):
        shutil.rmtree(folder)


def metric_lines(store: Path, fingerprint: str) -> int:
    path = store / "in-progress" / fingerprint / "work/metrics.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def test_kill_9_in_training_resumes_from_a_checkpoint_and_ends_with_the_same_weights(
    tiny_road: Path,
) -> None:
    change_recipe(tiny_road, "train", max_steps=14)
    store = tiny_road.parent.parent / "store"
    fingerprint = fingerprint_of(tiny_road, "tiny/train")
    out = tiny_road.parent.parent / "out"
    process = start("stage", "train", tiny_road, "--out", out / "train")
    wait_for(lambda: metric_lines(store, fingerprint) >= 6, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "the training process outlived the killed command"

    done = swift_here("stage", "train", tiny_road, "--out", out / "train")
    assert done.returncode == 0, done.stderr
    resumed = next(a for a in Store(store).artifacts() if a.fingerprint == fingerprint)
    assert resumed.record.resumed_from is not None

    shutil.rmtree(resumed.path)
    shutil.rmtree(out)  # a neighbour of --out would be taken into the store again
    swift_here("stage", "train", tiny_road, "--out", out / "again")
    straight = next(a for a in Store(store).artifacts() if a.fingerprint == fingerprint)
    assert straight.record.resumed_from is None
    assert straight.digest == resumed.digest


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_ends_the_stage_leaves_no_process_and_nothing_half_done(
    tiny_road: Path, stage: str
) -> None:
    store = tiny_road.parent.parent / "store"
    forget(store, stage)
    fingerprint = fingerprint_of(tiny_road, f"tiny/{stage}")
    process = start("stage", stage, tiny_road, "--out", tiny_road.parent.parent / "out" / stage)
    working = store / "in-progress" / fingerprint
    wait_for(lambda: list(working.glob("out-*")), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert Store(store).lookup(stage, fingerprint).artifact is None
    assert_everything_visible_is_whole(store)
    again = swift_here("stage", stage, tiny_road, "--out", tiny_road.parent.parent / "out" / stage)
    assert again.returncode == 0, again.stderr


def test_two_identical_trainings_at_once_train_once(tiny_road: Path) -> None:
    change_recipe(tiny_road, "tuner", lora_alpha=8)
    folder = tiny_road.parent.parent
    processes = [
        start("stage", "train", tiny_road, "--out", folder / f"out{i}/train") for i in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    lines = [line for text in errors for line in text.splitlines() if "tiny/train " in line]
    verbs = sorted(line.split()[0] for line in lines if line.split()[0] in ("ran", "reused"))
    assert verbs == ["ran", "reused"], errors


def test_an_output_byte_flipped_is_found_said_and_mended(tiny_road: Path) -> None:
    store = tiny_road.parent.parent / "store"
    weights = next((store / "merge").glob("tiny-*/model.safetensors"))
    before = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    planned = json.loads(swift_here("plan", tiny_road, "--json").stdout)
    merge = next(step for step in planned if step["label"] == "tiny/merge")
    assert merge["action"] == "run"
    assert "model.safetensors" in merge["reason"]
    done = swift_here("stage", "merge", tiny_road, "--out", tiny_road.parent.parent / "out/merge")
    assert done.returncode == 0, done.stderr
    assert list((store / "damaged").iterdir()), "the altered copy must be kept"
    assert_everything_visible_is_whole(store)


def test_an_input_edited_in_place_with_the_same_size_and_time_is_seen(tiny_road: Path) -> None:
    data = tiny_road.parent.parent / "data/train.jsonl"
    before = data.stat()
    text = data.read_text()
    data.write_text(text.replace("the", "THE", 1))
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert data.stat().st_size == before.st_size
    planned = json.loads(swift_here("plan", tiny_road, "--json").stdout)
    ingest = next(step for step in planned if step["label"] == "tiny/ingest")
    assert ingest["action"] == "run"
    assert "changed" in ingest["reason"]


def test_every_row_bad_keeps_the_rows_and_says_which(tmp_path: Path) -> None:
    _, recipe = tiny_recipes(tmp_path)
    (tmp_path / "data/train.jsonl").write_text('{"nothing": 1}\nnot json\n')
    done = swift("stage", "ingest", recipe, "--out", tmp_path / "out/ingest")
    assert_one_clear_block(done, 3)
    assert "train.jsonl:2" in done.stderr
    kept = list((tmp_path / "store/in-progress").rglob("quarantine.jsonl"))
    assert kept
    assert "not json" in kept[0].read_text()


def test_an_empty_file_is_bad_data(tmp_path: Path) -> None:
    _, recipe = tiny_recipes(tmp_path)
    (tmp_path / "data/train.jsonl").write_text("")
    done = swift_here("stage", "ingest", recipe, "--out", tmp_path / "out/ingest")
    assert_one_clear_block(done, 3)
    assert "train.jsonl" in done.stderr


def test_a_misspelt_key_names_its_line_and_the_right_one(tmp_path: Path) -> None:
    _, recipe = tiny_recipes(tmp_path)
    change_recipe(recipe, "train", learning_rat=1.0)
    done = swift("plan", recipe)
    assert_one_clear_block(done, 2)
    assert "did you mean learning_rate?" in done.stderr
    assert re.search(r"tiny\.yaml:\d+: train\.learning_rat", done.stderr)


def test_a_missing_base_model_is_an_environment_problem(tmp_path: Path) -> None:
    _, recipe = tiny_recipes(tmp_path)
    change_recipe(recipe, "model", model=str(tmp_path / "nowhere"))
    done = swift_here("plan", recipe)
    assert_one_clear_block(done, 5)
    assert "nowhere" in done.stderr


def test_a_full_disk_in_training_publishes_nothing_and_says_so(
    tiny_road: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        store = tiny_road.parent.parent / "store"
        for stage in ("ingest", "template", "scratch"):
            shutil.copytree(store / stage, small / stage)
        done = swift_here(
            "stage", "train", tiny_road, "--out", tmp_path / "out/train", "--store", small
        )
        assert_one_clear_block(done, 5)
        assert "room" in done.stderr
        assert not list((small / "train").glob("tiny-*"))
        assert_everything_visible_is_whole(small)
    finally:
        subprocess.run(["umount", str(small)], check=True)
