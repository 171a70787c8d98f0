"""One run in two processes: the same curve, the same steps, one end, one error."""

import json
import os
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import together, train_together
from safetensors.torch import load_file
from test_training_resume import wait_until_gone
from training_setup import (
    counting_inputs,
    counting_rows,
    folder_bytes,
    make_job,
    timeless,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import Cancelled, DataError, EnvironmentMissing, TrainingFailed, UsageError
from swiftcore.models.files import read_json
from swiftcore.recipe import Runtime, TrainSection, build_recipe
from swiftcore.recipe.processes import Processes
from swiftcore.recipe.sharding import deepspeed_config, reshard_after_forward
from swiftcore.training import TrainJob, checkpoints, run_training
from swiftcore.training.distributed.sharing import Share, Stand
from swiftcore.training.distributed.team import with_meeting_point
from swiftcore.training.distributed.whole import require_shardable
from swiftcore.training.distributed.world import World
from swiftcore.training.metrics import read_lines
from swiftcore.training.workspace import Workspace

pytestmark = pytest.mark.road

TWO = Processes(per_node=2)
NO_DROPOUT = {"lora_dropout": 0.0}
STEPS = {"num_train_epochs": 2, "logging_steps": 1, "save_steps": 2}
WITH_DEEPSPEED = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="the package deepspeed is not installed"
)
RECIPE = {"model": {"model": "m"}, "data": {"dataset": ["d.jsonl"]}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """21 rows: two processes that take two each have one row left for both in the last round."""
    return counting_inputs(tmp_path_factory.mktemp("processes"), 21, 3)


def job_of(root: Path, inputs, processes: Processes | None = None, **settings) -> TrainJob:
    job = make_job(root, *inputs, **{"tuner": NO_DROPOUT, **STEPS, **settings})
    return job.model_copy(update={"processes": processes or Processes()})


def curve(job: TrainJob, name: str = "loss") -> list[float]:
    lines = read_lines(Workspace(job.work_dir).metrics)
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize(
    ("tuner", "settings", "strategy"),
    [
        (NO_DROPOUT, {}, "DDP over gloo"),
        (NO_DROPOUT | {"use_dora": True}, {"packing": True, "packing_length": 40}, "DDP over gloo"),
        ({"train_type": "full"}, {"fsdp": "fsdp2"}, "FSDP2 over gloo"),
        pytest.param(NO_DROPOUT, {"deepspeed": "zero1"}, "DeepSpeed ZeRO-1", marks=WITH_DEEPSPEED),
        pytest.param(
            {"train_type": "full"}, {"deepspeed": "zero3"}, "DeepSpeed ZeRO-3", marks=WITH_DEEPSPEED
        ),
    ],
    ids=["padded", "packed dora", "fsdp2", "zero1", "zero3"],
)
def test_two_processes_log_the_curve_of_one(inputs, tmp_path, tuner, settings, strategy):
    plan = {"gradient_accumulation_steps": 2, "tuner": tuner, **settings}
    single = {"per_device_train_batch_size": 4, **plan, "fsdp": None, "deepspeed": None}
    one = job_of(tmp_path / "1", inputs, **single)
    two = job_of(tmp_path / "2", inputs, TWO, per_device_train_batch_size=2, **plan)
    (alone,) = train_together(one)
    results = train_together(two)
    assert [result.metrics["steps"] for result in results] == [alone.metrics["steps"]] * 2
    for name in ("loss", "eval_loss", "grad_norm"):
        assert curve(two, name) == pytest.approx(curve(one, name), rel=1e-5)
    assert len(curve(one)) == alone.metrics["steps"] >= 2
    for name in ("tokens", "label_tokens", "trainable_parameters", "total_parameters"):
        assert results[0].metrics[name] == alone.metrics[name]
    assert f"2 processes, {strategy}" in results[0].notes[-1]
    here, there = (load_file(next(job.out_dir.glob("*.safetensors"))) for job in (one, two))
    assert set(here) == set(there)
    for name, weight in here.items():
        assert torch.allclose(there[name], weight, atol=1e-4), name


@pytest.mark.parametrize(
    "strategy",
    [
        {},
        {"fsdp": "fsdp2"},
        pytest.param({"deepspeed": "zero2"}, marks=WITH_DEEPSPEED),
        pytest.param({"deepspeed": "zero3"}, marks=WITH_DEEPSPEED),
    ],
    ids=["ddp", "fsdp2", "zero2", "zero3"],
)
def test_a_stop_that_one_process_hears_of_ends_both_and_the_rerun_ends_the_same(
    inputs, tmp_path, strategy
):
    dropout = {"tuner": {"lora_dropout": 0.1}, "num_train_epochs": 3, **strategy}
    whole = job_of(tmp_path / "whole", inputs, TWO, **dropout)
    train_together(whole)
    job = job_of(tmp_path / "stopped", inputs, TWO, **dropout)
    # Written by a thread, checkpoints are the same.
    job = job.model_copy(update={"async_save": "deepspeed" not in strategy})
    # Two questions before the first step, then one a step.
    results = train_together(job, stop_rank=1, stop_after=5)
    assert all(isinstance(result, Cancelled) for result in results), results
    results = train_together(job)
    assert [result.resumed_from for result in results] == [4, 4]
    histories = [timeless(read_lines(Workspace(j.work_dir).metrics)) for j in (whole, job)]
    assert histories[0] == histories[1]
    assert folder_bytes(whole.out_dir) == folder_bytes(job.out_dir)


def elements_held(number: int, job: TrainJob) -> tuple[int, int]:
    """Return how many elements of a model's weights there are, and how many a process holds."""
    from swiftcore.models import load_model
    from swiftcore.training.distributed.strategies import strategy_for

    model: Any = load_model(job.model_dir)
    every = sum(weight.numel() for weight in model.parameters())
    strategy_for(job, World.join(job, number)).shard(model)
    return every, sum(weight.to_local().numel() for weight in model.parameters())


def test_each_of_two_processes_holds_half_of_the_weights(inputs, tmp_path):
    job = job_of(tmp_path, inputs, with_meeting_point(TWO), fsdp="fsdp2")
    held = together(elements_held, [(job,), (job,)])
    for every, here in held:
        assert here == pytest.approx(every / 2, rel=0.02)


def test_settings_of_fsdp_that_would_do_something_else_are_refused(tmp_path):
    file = tmp_path / "fsdp.json"
    file.write_text('{"fsdp": "full_shard auto_wrap", "fsdp_config": {"fsdp_version": 2}}')
    written = json.loads(file.read_text())
    assert TrainSection(fsdp=str(file)).fsdp == written
    file.write_text('{"fsdp_config": {"reshard_after_forward": false}}')
    assert reshard_after_forward(TrainSection(fsdp=str(file)).fsdp) is False
    for settings in ({"fsdp_version": 1}, {"offload_params": True}, str(tmp_path / "none.json")):
        with pytest.raises(ValueError, match="fsdp"):
            TrainSection(fsdp=settings)


def test_settings_of_deepspeed_are_followed_or_refused():
    assert deepspeed_config("zero3_offload")["zero_optimization"] == {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "offload_param": {"device": "cpu", "pin_memory": True},
    }
    swifts = {"train_batch_size": "auto", "zero_optimization": {"stage": 2, "overlap_comm": False}}
    assert deepspeed_config({**swifts, "bf16": {"enabled": "auto"}}) == {
        "zero_optimization": {"stage": 2, "overlap_comm": False}
    }
    for settings in ({"optimizer": {"type": "Adam"}}, {"zero_optimization": {"stage": 4}}, "zero9"):
        with pytest.raises(ValueError, match="deepspeed"):
            TrainSection(deepspeed=settings)
    with pytest.raises(ValueError, match="give one"):
        TrainSection(deepspeed="zero2", fsdp="fsdp2")


def test_deepspeed_that_is_not_installed_is_asked_for(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("swiftcore.training.distributed.team.find_spec", lambda name: None)
    with pytest.raises(EnvironmentMissing, match="DeepSpeed") as caught:
        run_training(job_of(tmp_path, inputs, TWO, deepspeed="zero2"))
    assert "pip install deepspeed" in caught.value.do


@pytest.mark.parametrize(
    "tuner", [{"train_type": "adalora"}, {"train_type": "full", "lisa_activated_layers": 1}]
)
def test_what_needs_whole_weights_is_refused_with_parts_of_them(inputs, tmp_path, tuner):
    job = job_of(tmp_path, inputs, TWO, tuner=tuner, fsdp="fsdp2")
    with pytest.raises(UsageError, match="whole weights"):
        require_shardable(job)


def test_a_killed_process_ends_the_other_and_its_checkpoint_stays(inputs, tmp_path):
    job = job_of(tmp_path, inputs, TWO, num_train_epochs=3, save_steps=1)
    pids = []

    def kill_one(line):
        if line["step"] >= 3 and not pids:
            pids.extend(read_json(Workspace(job.work_dir).started)["pids"])
            os.kill(pids[1], signal.SIGKILL)

    with pytest.raises(TrainingFailed, match="ended by SIGKILL") as caught:
        run_training(job, on_metrics=kill_one)
    assert "train-1.log" in caught.value.where
    for pid in pids:
        wait_until_gone(pid)
    newest, _ = checkpoints.newest_verified(Workspace(job.work_dir).checkpoints, job.identity())
    assert newest is not None
    assert newest.step >= 2


def die_while_writing(number: int, job: TrainJob, step: int) -> None:
    seal = checkpoints.seal

    def kill(folder: Path, identity: str) -> None:
        if folder == checkpoints.at_step(Workspace(job.work_dir).checkpoints, step):
            os.kill(os.getpid(), signal.SIGKILL)
        seal(folder, identity)

    checkpoints.seal = kill
    train_in_this_process(job)


def test_kill_9_while_a_thread_writes_leaves_the_older_checkpoint(inputs, tmp_path):
    whole = job_of(tmp_path / "whole", inputs, save_steps=3)
    job = job_of(tmp_path / "killed", inputs, save_steps=3).model_copy(update={"async_save": True})
    (ended,) = together(die_while_writing, [(job, 9)])
    assert "without a word" in str(ended)
    assert (Workspace(job.work_dir).checkpoints / "checkpoint-9" / "optimizer.pt").is_file()
    train_together(whole)
    (result,) = train_together(job)
    assert result.resumed_from == 6
    assert any("checkpoint-9 is not used: it was not finished" in note for note in result.notes)
    histories = [timeless(read_lines(Workspace(j.work_dir).metrics)) for j in (whole, job)]
    assert histories[0] == histories[1]
    assert folder_bytes(whole.out_dir) == folder_bytes(job.out_dir)


def test_a_loss_that_is_not_finite_is_one_error_with_its_rows(inputs, tmp_path):
    job = job_of(tmp_path, inputs, TWO, learning_rate=1e30, tuner={"train_type": "full"})
    errors = train_together(job)
    assert {type(error).__name__ for error in errors} <= {"TrainingFailed", "PeerFailed"}
    reported = next(error for error in errors if isinstance(error, TrainingFailed))
    assert "step 2" in reported.where


def test_every_row_is_in_one_share_and_a_process_without_one_stands_by():
    for num_rows in (2, 3, 8, 9, 13):
        shares = [Share(range(num_rows), 3, World(3, rank, rank)) for rank in range(3)]
        dealt = [list(share) for share in shares]
        real = [row for share in dealt for row in share if not isinstance(row, Stand)]
        assert sorted(real) == list(range(num_rows))
        assert [len(share) for share in shares] == [len(share) for share in dealt]
        assert len({-(-len(share) // 3) for share in dealt}) == 1
    assert list(Share(range(2), 3, World(3, 2, 2))) == [Stand(0)]


def test_fewer_rows_than_processes_are_refused(inputs, tmp_path):
    encoded = write_encoded(tmp_path / "one", counting_rows(1))
    for error in train_together(job_of(tmp_path, (inputs[0], encoded), TWO)):
        assert isinstance(error, DataError)
        assert "1 rows" in error.found


def test_rows_of_a_step_stay_those_of_the_recipe(tmp_path):
    def plan(num_processes, **train):
        processes = Processes(per_node=num_processes)
        train = {"gradient_accumulation_steps": None, "per_device_train_batch_size": 1, **train}
        return job_of(tmp_path, (tmp_path, tmp_path), processes, **train).batch_plan()

    assert [plan(n) for n in (1, 2, 3, 4, 32)] == [(1, 16), (1, 8), (1, 6), (1, 4), (1, 1)]
    given = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    assert plan(4, **given) == (2, 3)
    # A recipe of four processes, on two and on one: the same 24 rows.
    assert [plan(n, data_parallel_size=4, **given) for n in (4, 2, 1)] == [(2, 3), (2, 6), (2, 12)]
    with pytest.raises(UsageError, match="can't share") as caught:
        plan(2, data_parallel_size=1, gradient_accumulation_steps=1)
    assert caught.value.found == "1 rows a step, 2 processes"


def test_the_number_of_processes_is_in_the_recipe_where_it_shapes_a_step(monkeypatch):
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    open_batch = build_recipe(dict(RECIPE))
    assert open_batch.runtime.processes().world_size == 2
    assert open_batch.recipe.train.data_parallel_size is None
    fixed = build_recipe({**RECIPE, "train": {"gradient_accumulation_steps": 4}})
    assert fixed.recipe.train.data_parallel_size == 2
    monkeypatch.delenv("NPROC_PER_NODE")
    alone = build_recipe({**RECIPE, "train": {"gradient_accumulation_steps": 4}})
    assert alone.recipe.train.data_parallel_size is None


@pytest.mark.parametrize(
    ("variables", "fields", "where"),
    [
        ({"NPROC_PER_NODE": "two"}, {}, "NPROC_PER_NODE"),
        ({"NPROC_PER_NODE": "0"}, {}, "NPROC_PER_NODE"),
        ({"NNODES": "-1"}, {}, "NNODES"),
        ({"NNODES": "2", "MASTER_ADDR": "a", "NODE_RANK": "2"}, {}, "NODE_RANK"),
        ({"NNODES": "2"}, {}, "master_addr"),
        ({"NPROC_PER_NODE": "2", "MASTER_PORT": "x"}, {}, "MASTER_PORT"),
        ({}, {"ddp_timeout": 60}, "ddp_timeout"),
    ],
)
def test_settings_that_make_no_sense_are_refused(monkeypatch, variables, fields, where):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        Runtime(**fields).processes()
    assert where in caught.value.where


def test_a_taken_port_and_a_missing_gpu_are_named(inputs, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentMissing, match="port") as caught:
            with_meeting_point(Processes(per_node=2, master_port=port))
        assert str(port) in caught.value.found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    job = job_of(tmp_path, inputs, TWO).model_copy(update={"device": "cuda"})
    with pytest.raises(EnvironmentMissing, match="fewer GPUs"):
        run_training(job)
