"""Bad days of training: kills, cancellation, damaged checkpoints, a full disk, no memory."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from training_setup import (
    counting_inputs,
    folder_bytes,
    make_job,
    timeless,
    train_in_this_process,
)

from swiftcore.errors import StoreFull, TrainingFailed
from swiftcore.models.files import read_json
from swiftcore.training import TrainJob, checkpoints, run_training
from swiftcore.training.failures import OUT_OF_MEMORY, as_swift_error, exit_error
from swiftcore.training.metrics import MetricsLog, read_lines
from swiftcore.training.workspace import Workspace

pytestmark = pytest.mark.road

LAUNCHER = """
import sys
from pathlib import Path
from swiftcore.errors import SwiftError
from swiftcore.training import TrainJob, run_training
try:
    run_training(TrainJob.model_validate_json(Path(sys.argv[1]).read_text()))
except SwiftError as err:
    print(err)
    sys.exit(err.exit_code)
"""
STEPS = {"num_train_epochs": 12, "logging_steps": 4, "save_steps": 6, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return counting_inputs(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def uninterrupted(inputs, tmp_path_factory):
    """60 steps of LoRA with dropout; logging, saving and epochs end at different steps."""
    job = make_job(tmp_path_factory.mktemp("whole"), *inputs, **STEPS)
    train_in_this_process(job)
    return job


def assert_same_end(job: TrainJob, uninterrupted: TrainJob) -> None:
    lines = [timeless(read_lines(Workspace(j.work_dir).metrics)) for j in (job, uninterrupted)]
    assert lines[0] == lines[1]
    assert folder_bytes(job.out_dir) == folder_bytes(uninterrupted.out_dir)


def run_until(job: TrainJob, step: int, then) -> None:
    """Run a job and call `then(worker pid)` once a metric line at or after the step is there."""
    done = threading.Event()

    def on_metrics(line):
        if line["step"] >= step and not done.is_set():
            done.set()
            then(read_json(Workspace(job.work_dir).started)["pid"])

    run_training(job, on_metrics=on_metrics)


def launch(job: TrainJob, root: Path) -> subprocess.Popen:
    file = root / "launch.json"
    file.write_text(job.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(file)], stdout=subprocess.PIPE, text=True
    )


def wait_for_step(job: TrainJob, step: int, timeout_seconds: float = 90) -> int:
    files, deadline = Workspace(job.work_dir), time.monotonic() + timeout_seconds
    while not any(line["step"] >= step for line in read_lines(files.metrics)):
        assert time.monotonic() < deadline, files.log_tail()
        time.sleep(0.02)
    return read_json(files.started)["pid"]


def wait_until_gone(pid: int, timeout_seconds: float = 10) -> None:
    deadline = time.monotonic() + timeout_seconds
    while Path(f"/proc/{pid}/cmdline").is_file() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists(), f"process {pid} is an orphan"


def test_kill_9_then_flipped_byte_then_half_checkpoint_still_ends_the_same(
    inputs, uninterrupted, tmp_path
):
    job = make_job(tmp_path, *inputs, **STEPS)
    with pytest.raises(TrainingFailed, match="SIGKILL"):
        run_until(job, 20, lambda pid: os.kill(pid, signal.SIGKILL))
    folder = Workspace(job.work_dir).checkpoints
    newest, _rejected = checkpoints.newest_verified(folder, job.identity())
    assert newest is not None
    assert newest.step >= 12
    weights = newest.path / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    half = folder / "checkpoint-999"
    half.mkdir()
    (half / "optimizer.pt").write_bytes(b"half")
    with Workspace(job.work_dir).metrics.open("a") as stream:
        stream.write('{"step": 59, "loss": 1')

    result = run_training(job)

    assert result.resumed_from == newest.step - 6
    assert any("checkpoint-999 is not used: it was not finished" in n for n in result.notes)
    assert any("adapter_model.safetensors was altered" in n for n in result.notes)
    assert not half.exists()
    assert_same_end(job, uninterrupted)


def test_sigterm_writes_a_checkpoint_and_the_next_run_ends_the_same(
    inputs, uninterrupted, tmp_path
):
    job = make_job(tmp_path, *inputs, **STEPS)
    launcher = launch(job, tmp_path)
    worker = wait_for_step(job, 8)
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, output
    assert "its checkpoint is kept" in output
    wait_until_gone(worker)
    assert not job.out_dir.exists()
    result = train_in_this_process(job)
    assert result.resumed_from is not None
    assert 8 <= result.resumed_from < 60
    assert_same_end(job, uninterrupted)


def test_a_killed_parent_leaves_no_orphan(inputs, tmp_path):
    job = make_job(tmp_path, *inputs, **{**STEPS, "num_train_epochs": 1000})
    launcher = launch(job, tmp_path)
    worker = wait_for_step(job, 4)
    launcher.kill()
    launcher.communicate()
    wait_until_gone(worker)


def test_a_second_ctrl_c_forces_the_end(inputs, tmp_path):
    job = make_job(tmp_path, *inputs, **{**STEPS, "num_train_epochs": 1000})
    launcher = launch(job, tmp_path)
    worker = wait_for_step(job, 4)
    # A stopped process can't act on SIGTERM, so that only the second request can end it.
    os.kill(worker, signal.SIGSTOP)
    launcher.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=15)
    assert launcher.returncode == 130, output
    wait_until_gone(worker)


def test_checkpoint_of_another_job_is_not_used(inputs, uninterrupted, tmp_path):
    folder = Workspace(uninterrupted.work_dir).checkpoints
    other = make_job(tmp_path, *inputs, **{**STEPS, "learning_rate": 2e-3})
    found, rejected = checkpoints.newest_verified(folder, other.identity())
    assert found is None
    assert all("another training job" in reason for reason in rejected)


def test_a_full_disk_is_named_and_its_room_given_back(inputs, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        job = make_job(disk, *inputs, **STEPS)
        with pytest.raises(StoreFull, match="disk is full"):
            run_training(job)
        folder = Workspace(job.work_dir).checkpoints
        assert all((path / checkpoints.RECORD).is_file() for path in folder.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_smaller_batches_keep_the_batch():
    def plan(job):
        return None if job is None else job.batch_plan()

    folder = Path("x")
    job = make_job(folder, folder, folder, per_device_train_batch_size=8)
    assert plan(job) == (8, 2)
    half = job.with_smaller_batches()
    assert plan(half) == (4, 4)
    assert half.identity() == job.identity()
    odd = make_job(folder, folder, folder, per_device_train_batch_size=9)
    assert plan(odd.with_smaller_batches()) == (3, 6)
    assert (
        make_job(folder, folder, folder, per_device_train_batch_size=1).with_smaller_batches()
        is None
    )


def test_smaller_batches_train_the_same(inputs, uninterrupted, tmp_path):
    job = make_job(tmp_path, *inputs, **{**STEPS, "max_steps": 8}, tuner={"lora_dropout": 0.0})
    small = job.model_copy(
        update={"micro_batch_size": 1, "work_dir": tmp_path / "w2", "out_dir": tmp_path / "o2"}
    )
    losses = [
        [line["loss"] for line in read_lines(train_in_this_process(j).history) if "loss" in line]
        for j in (job, small)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_out_of_memory_is_tried_once_more_with_smaller_batches(inputs, tmp_path, monkeypatch):
    from swiftcore.training import launch as module

    plans = []

    def attempt(job, watch, grace_seconds):
        plans.append(job.batch_plan())
        raise exit_error(-9, tmp_path / "log", "", oom_killed=True)

    monkeypatch.setattr(module, "_attempt", attempt)
    job = make_job(tmp_path, *inputs, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    with pytest.raises(TrainingFailed, match=OUT_OF_MEMORY):
        run_training(job)
    assert plans == [(8, 1), (4, 2)]


@pytest.mark.parametrize(
    ("returncode", "tail", "oom_killed", "kind", "text"),
    [
        (-9, "", True, TrainingFailed, OUT_OF_MEMORY),
        (137, "", True, TrainingFailed, OUT_OF_MEMORY),
        (137, "", False, TrainingFailed, "SIGKILL"),
        (-11, "last words", False, TrainingFailed, "SIGSEGV"),
        (1, "terminate: std::bad_alloc", False, TrainingFailed, OUT_OF_MEMORY),
        (1, "OSError: No space left on device", False, StoreFull, "disk is full"),
        (3, "odd", False, TrainingFailed, "exit code 3"),
    ],
)
def test_the_end_of_a_process_is_put_into_words(returncode, tail, oom_killed, kind, text):
    error = exit_error(returncode, Path("train.log"), tail, oom_killed)
    assert type(error) is kind
    assert text in error.message
    assert error.do


@pytest.mark.parametrize(
    ("err", "text"),
    [
        (MemoryError(), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OUT_OF_MEMORY),
        (OSError(28, "No space left on device"), "disk is full"),
        (KeyError("x"), "the training process failed"),
    ],
)
def test_exceptions_are_put_into_words(err, text):
    assert text in as_swift_error(err, Path("train.log")).message


def test_metric_lines_of_lost_steps_are_dropped(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 4, 8):
        log.append({"step": step, "loss": 0.1})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 9, "lo')
    log.keep_until(4)
    log.append({"step": 8, "loss": 0.2})
    assert [(line["step"], line["loss"]) for line in read_lines(tmp_path / "metrics.jsonl")] == [
        (1, 0.1),
        (4, 0.1),
        (8, 0.2),
    ]
