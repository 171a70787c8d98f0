"""Checkpoints that a thread writes while training goes on: `runtime.async_save`."""

import errno
import os
import threading
from pathlib import Path

import pytest
import torch
from training_setup import (
    counting_inputs,
    folder_bytes,
    make_job,
    timeless,
    train_in_this_process,
)

from swiftcore.errors import UsageError
from swiftcore.models.shape import model_shape
from swiftcore.recipe import Recipe, Runtime
from swiftcore.stages.train import train_job
from swiftcore.training import TrainJob, checkpoints
from swiftcore.training.estimate import estimate_memory
from swiftcore.training.failures import as_swift_error
from swiftcore.training.metrics import read_lines
from swiftcore.training.saving import BackgroundTask, host_copy
from swiftcore.training.workspace import Workspace

STEPS = {"num_train_epochs": 2, "logging_steps": 2, "save_steps": 3, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return counting_inputs(tmp_path_factory.mktemp("saving"))


def in_background(job: TrainJob) -> TrainJob:
    return job.model_copy(update={"async_save": True})


def ends(job: TrainJob) -> tuple[list[dict], dict[str, bytes]]:
    return timeless(read_lines(Workspace(job.work_dir).metrics)), folder_bytes(job.out_dir)


@pytest.fixture(scope="module")
def at_once(inputs, tmp_path_factory):
    """10 steps of LoRA with dropout, checkpoints at 3, 6, 9 and 10."""
    job = make_job(tmp_path_factory.mktemp("at-once"), *inputs, **STEPS)
    train_in_this_process(job)
    return job


def test_curve_result_and_checkpoints_are_those_of_writing_at_once(inputs, at_once, tmp_path):
    job = in_background(make_job(tmp_path, *inputs, **STEPS))
    threads = set()
    seal = checkpoints.seal

    def watched(folder, identity):
        threads.add(threading.current_thread())
        seal(folder, identity)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "seal", watched)
        train_in_this_process(job)
    assert len(threads) == 4
    assert threading.main_thread() not in threads
    assert ends(job) == ends(at_once)
    for step in (3, 6, 9, 10):
        ours, theirs = (
            checkpoints.at_step(Workspace(j.work_dir).checkpoints, step) for j in (job, at_once)
        )
        assert checkpoints.fault(ours, job.identity()) is None
        weights = "adapter_model.safetensors"
        assert (ours / weights).read_bytes() == (theirs / weights).read_bytes()
        assert {f.name for f in ours.iterdir()} == {f.name for f in theirs.iterdir()}
        states = [torch.load(f / "optimizer.pt", weights_only=True) for f in (ours, theirs)]
        for name in ("exp_avg", "exp_avg_sq", "step"):
            assert states[0]["state"][0][name].equal(states[1]["state"][0][name])


def test_full_training_with_tied_weights_saves_the_same_bytes(inputs, tmp_path):
    settings = {**STEPS, "num_train_epochs": 1, "learning_rate": 1e-2}
    jobs = [make_job(tmp_path / n, *inputs, tuner={"train_type": "full"}, **settings) for n in "ab"]
    jobs[1] = in_background(jobs[1])
    for job in jobs:
        train_in_this_process(job)
    stored = [
        checkpoints.at_step(Workspace(j.work_dir).checkpoints, 3) / "model.safetensors"
        for j in jobs
    ]
    assert stored[0].read_bytes() == stored[1].read_bytes()
    assert ends(jobs[0]) == ends(jobs[1])


@pytest.mark.parametrize("fails_at", [3, 10])
def test_a_full_disk_ends_the_training_and_gives_its_room_back(inputs, tmp_path, fails_at):
    """At 3 the next step or save notices it, at 10 the end of the run does."""
    job = in_background(make_job(tmp_path, *inputs, **STEPS))
    seal = checkpoints.seal

    def full(folder, identity):
        if folder.name == f"checkpoint-{fails_at}":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        seal(folder, identity)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "seal", full)
        with pytest.raises(OSError, match="No space") as raised:
            train_in_this_process(job)
    assert "disk is full" in as_swift_error(raised.value, tmp_path).message
    left = {path.name for path in Workspace(job.work_dir).checkpoints.iterdir()}
    assert left == ({"checkpoint-3", "checkpoint-6", "checkpoint-9"} if fails_at == 10 else set())
    assert not job.out_dir.exists()


def test_a_second_write_waits_for_the_first():
    task, order, gate = BackgroundTask(), [], threading.Event()

    def first():
        gate.wait(10)
        order.append("first")

    task.start(first)
    opener = threading.Timer(0.05, gate.set)
    opener.start()
    task.start(lambda: order.append("second"))
    assert order[0] == "first"
    task.wait()
    assert order == ["first", "second"]


def test_what_the_thread_raised_is_raised_once_and_hides_nothing():
    def fails():
        raise OSError("no room")

    task = BackgroundTask()
    task.start(fails)
    task.settle()
    with pytest.raises(OSError, match="no room"):
        task.check()
    task.check()
    with pytest.raises(OSError, match="no room"), task:
        task.start(fails)
    with pytest.raises(ValueError, match="loss"):
        diverge(fails)


def diverge(work) -> None:
    with BackgroundTask() as task:
        task.start(work)
        raise ValueError("loss is nan")


def test_the_copy_keeps_ties_and_nothing_of_the_original():
    weight = torch.arange(6.0).view(2, 3)
    state = {"a": weight, "tied": weight.detach(), "row": weight[0], "more": [(weight + 1, 7)]}
    kept = host_copy(state)
    weight.zero_()
    assert kept["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert kept["a"].data_ptr() == kept["tied"].data_ptr() != weight.data_ptr()
    assert kept["row"].tolist() == [0, 1, 2]
    assert kept["more"][0][1] == 7


@pytest.mark.parametrize("train", [{"save_strategy": "no"}, {"deepspeed": "zero2"}])
def test_it_is_refused_where_it_does_nothing(tmp_path, train):
    recipe = Recipe(name="a", model={"model": "m"}, data={"dataset": ["d"]}, train=train)
    places = {"work_dir": tmp_path, "out_dir": tmp_path}
    runtime = Runtime(async_save=True, device="cpu")
    with pytest.raises(UsageError, match="does nothing here"):
        train_job(recipe, runtime, tmp_path, tmp_path, **places)
    assert not train_job(recipe, Runtime(device="cpu"), tmp_path, tmp_path, **places).async_save


def test_it_is_no_part_of_what_is_trained_but_of_its_memory(inputs):
    job = make_job(Path("x"), *inputs, tuner={"train_type": "full"})
    background = in_background(job)
    assert background.identity() == job.identity()
    more = estimate_memory(background, 0).total - estimate_memory(job, 0).total
    # float32 weights and Adam's two moments
    assert more == 3 * 4 * model_shape(job.model_dir).entries
