"""Which checkpoint is best, which ones stay, and when training ends before its last step."""

import math

import pytest
from pydantic import ValidationError
from training_setup import (
    counting_rows,
    folder_bytes,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import UsageError
from swiftcore.models import load_adapted_model
from swiftcore.recipe import TrainSection
from swiftcore.training import checkpoints
from swiftcore.training.metrics import read_lines
from swiftcore.training.workspace import Workspace

# 20 rows in batches of 4 are 5 steps a pass.
RESTLESS = {"learning_rate": 0.01, "num_train_epochs": 4, "save_steps": 2, "logging_steps": 1}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base, and rows of one token; those held out are of another, and get worse with learning."""
    folder = tmp_path_factory.mktemp("best")
    encoded = write_encoded(folder / "encoded", rows_of(30, 20), rows_of(31, 4))
    return tiny_base(folder / "base"), encoded


def rows_of(token: int, num_rows: int) -> list[dict]:
    rows = counting_rows(num_rows)
    for row in rows:
        row["input_ids"] = [token] * len(row["input_ids"])
        row["labels"] = [-100, -100, *row["input_ids"][2:]]
    return rows


def eval_losses(job) -> dict[int, float]:
    lines = read_lines(Workspace(job.work_dir).metrics)
    return {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}


def kept_steps(job) -> list[int]:
    folder = Workspace(job.work_dir).checkpoints
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.iterdir())


@pytest.fixture(scope="module")
def restless(inputs, tmp_path_factory):
    """20 steps whose best evaluation is not the last one."""
    job = make_job(tmp_path_factory.mktemp("best"), *inputs, **RESTLESS, save_total_limit=1)
    return job, train_in_this_process(job)


def test_the_best_evaluation_is_recorded_and_its_checkpoint_outlives_rotation(restless):
    job, result = restless
    losses = eval_losses(job)
    best = min(losses, key=losses.__getitem__)
    assert best < 20
    assert result.metrics["best_step"] == best
    assert result.metrics["best_metric"] == losses[best]
    assert result.metrics["eval_loss"] == losses[20]
    assert kept_steps(job) == [best, 20]


def test_the_best_checkpoint_is_handed_on_when_asked_and_again_after_a_restart(
    restless, inputs, tmp_path
):
    best = int(restless[1].metrics["best_step"])
    job = make_job(tmp_path, *inputs, **RESTLESS, load_best_model_at_end=True)
    result = train_in_this_process(job)
    assert f"the output is the best checkpoint: step {best}" in result.notes[-1]
    weights = "adapter_model.safetensors"
    found = load_adapted_model(job.model_dir, job.out_dir).state_dict()
    stored = checkpoints.at_step(Workspace(job.work_dir).checkpoints, best)
    expected = load_adapted_model(job.model_dir, stored).state_dict()
    assert all(found[name].equal(expected[name]) for name in expected)
    last = restless[0].out_dir / weights
    assert (job.out_dir / weights).read_bytes() != last.read_bytes()
    again = job.model_copy(update={"out_dir": tmp_path / "again"})
    assert train_in_this_process(again).resumed_from == 20
    assert folder_bytes(tmp_path / "again") == folder_bytes(job.out_dir)


def test_early_stop_ends_after_so_many_checkpoints_without_a_gain(restless, inputs, tmp_path):
    losses = eval_losses(restless[0])
    since, expected = 0, 20
    for step in losses:
        gained = losses[step] == min(loss for other, loss in losses.items() if other <= step)
        since = 0 if gained else since + 1
        if since == 2:
            expected = step
            break
    assert expected < 20
    job = make_job(tmp_path / "one", *inputs, **RESTLESS, early_stop_interval=2)
    result = train_in_this_process(job)
    assert result.metrics["steps"] == expected
    assert eval_losses(job) == {step: loss for step, loss in losses.items() if step <= expected}
    # A run that ended early is finished: started again, it trains no step.
    again = job.model_copy(update={"out_dir": tmp_path / "again"})
    assert train_in_this_process(again).resumed_from == expected
    assert folder_bytes(tmp_path / "again") == folder_bytes(job.out_dir)


def test_max_epochs_ends_a_longer_schedule_evaluated_and_saved(inputs, tmp_path):
    """The rate of the tenth step is that of a cosine over 20 steps."""
    settings = {**RESTLESS, "learning_rate": 1e-3, "save_steps": 100, "max_epochs": 2}
    job = make_job(tmp_path, *inputs, **settings)
    result = train_in_this_process(job)
    assert result.metrics["steps"] == 10
    assert list(eval_losses(job)) == [10]
    assert kept_steps(job) == [10]
    lines = [line for line in read_lines(result.history) if "loss" in line]
    assert len(lines) == 10
    assert lines[-1]["learning_rate"] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 9 / 20)) / 2)


def test_epoch_strategies_evaluate_and_save_at_the_end_of_each_pass(inputs, tmp_path):
    settings = {**RESTLESS, "save_strategy": "epoch", "num_train_epochs": 2}
    job = make_job(tmp_path, *inputs, **settings)
    train_in_this_process(job)
    assert list(eval_losses(job)) == kept_steps(job) == [5, 10]


def test_checkpoints_with_weights_alone_are_small_and_not_resumed(inputs, tmp_path):
    settings = {**RESTLESS, "num_train_epochs": 1, "save_only_model": True}
    whole = make_job(tmp_path / "whole", *inputs, **settings)
    train_in_this_process(whole)
    stopped = make_job(tmp_path / "stopped", *inputs, **settings)
    folder = Workspace(whole.work_dir).checkpoints
    names = {file.name for file in checkpoints.at_step(folder, 4).iterdir()}
    assert "adapter_model.safetensors" in names
    assert not names & {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    files = Workspace(stopped.work_dir)
    files.checkpoints.mkdir(parents=True)
    checkpoints.at_step(folder, 2).rename(checkpoints.at_step(files.checkpoints, 2))
    result = train_in_this_process(stopped)
    assert result.resumed_from is None
    assert any("holds weights alone" in note for note in result.notes)
    assert folder_bytes(stopped.out_dir) == folder_bytes(whole.out_dir)


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    for step in (2, 4, 6, 8):
        checkpoints.at_step(tmp_path, step).mkdir()
    checkpoints.rotate(tmp_path, 3, best_step=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-2", "checkpoint-6", "checkpoint-8",
    ]  # fmt: skip
    checkpoints.rotate(tmp_path, 1, best_step=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-8"]
    checkpoints.rotate(tmp_path, 1, best_step=8)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stop_interval": 2, "eval_strategy": "no"}, "needs evaluations"),
        ({"load_best_model_at_end": True, "eval_steps": 250}, "each needs an evaluation"),
        ({"early_stop_interval": 1, "eval_strategy": "epoch"}, "each needs an evaluation"),
        ({"greater_is_better": True}, "without train.metric_for_best_model"),
        ({"resume_only_model": True}, "without train.resume_from_checkpoint"),
        ({"resume_from_checkpoint": "c", "ignore_data_skip": True}, "without train.resume_only"),
        (
            {"gradient_checkpointing": False, "gradient_checkpointing_kwargs": {}},
            "without gradient_checkpointing",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TrainSection(**settings)


def test_a_metric_needs_validation_rows_and_a_known_name(inputs, tmp_path):
    base, encoded = inputs
    alone = write_encoded(tmp_path / "alone", counting_rows(4))
    with pytest.raises(UsageError, match="no validation rows") as caught:
        train_in_this_process(make_job(tmp_path / "a", base, alone, early_stop_interval=1))
    assert caught.value.where == "train.early_stop_interval"
    unknown = {**RESTLESS, "metric_for_best_model": "rouge"}
    with pytest.raises(UsageError, match="no such validation metric") as caught:
        train_in_this_process(make_job(tmp_path / "b", base, encoded, **unknown))
    assert caught.value.expected == "loss"
