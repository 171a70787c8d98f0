"""Going on from a checkpoint that the recipe names: what is taken, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from training_setup import (
    counting_rows,
    folder_bytes,
    make_job,
    timeless,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import UsageError
from swiftcore.recipe import build_recipe
from swiftcore.stages.train import TRAIN
from swiftcore.training import checkpoints
from swiftcore.training.metrics import read_lines
from swiftcore.training.workspace import Workspace

STEPS = {"num_train_epochs": 2, "save_steps": 4, "logging_steps": 1, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("resuming")
    return tiny_base(root / "base"), write_encoded(root / "encoded", counting_rows(20))


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """Ten steps, with checkpoints after 4 and 8."""
    job = make_job(tmp_path_factory.mktemp("whole"), *inputs, **STEPS)
    train_in_this_process(job)
    return job


@pytest.fixture
def fourth(whole, tmp_path):
    """A copy of the fourth step's checkpoint, away from the run that made it."""
    return shutil.copytree(
        checkpoints.at_step(Workspace(whole.work_dir).checkpoints, 4), tmp_path / "kept"
    )


def lines_of(job) -> list[dict]:
    return timeless(read_lines(Workspace(job.work_dir).metrics))


def test_a_named_checkpoint_ends_as_the_run_it_came_from(whole, fourth, inputs, tmp_path):
    job = make_job(tmp_path, *inputs, **STEPS, resume_from_checkpoint=str(fourth))
    result = train_in_this_process(job)
    assert result.resumed_from == 4
    assert lines_of(job) == lines_of(whole)[4:]
    weights = "adapter_model.safetensors"
    assert folder_bytes(job.out_dir)[weights] == folder_bytes(whole.out_dir)[weights]
    assert result.metrics["steps"] == 10


def test_weights_alone_keep_their_place_in_rows_and_schedule(inputs, tmp_path):
    """Without the optimizer's moments the first loss is the same, and later ones are not."""
    still = {"lora_dropout": 0.0}
    plain = make_job(tmp_path / "plain", *inputs, tuner=still, **STEPS)
    train_in_this_process(plain)
    stored = checkpoints.at_step(Workspace(plain.work_dir).checkpoints, 4)
    resume = {"resume_from_checkpoint": str(stored), "resume_only_model": True}
    job = make_job(tmp_path, *inputs, tuner=still, **STEPS, **resume)
    train_in_this_process(job)
    here, there = lines_of(job), lines_of(plain)[4:]
    assert [line["step"] for line in here] == [5, 6, 7, 8, 9, 10]
    rates = [[line["learning_rate"] for line in lines] for lines in (here, there)]
    assert rates[0] == pytest.approx(rates[1])
    assert here[0]["loss"] == pytest.approx(there[0]["loss"], rel=1e-6)
    assert here[-1]["loss"] != pytest.approx(there[-1]["loss"], rel=1e-6)


def test_ignoring_the_data_skip_begins_at_the_first_row(whole, fourth, inputs, tmp_path):
    resume = {"resume_from_checkpoint": str(fourth), "resume_only_model": True}
    job = make_job(tmp_path, *inputs, **STEPS, **resume, ignore_data_skip=True)
    (fourth / "trainer_state.json").unlink()
    assert train_in_this_process(job).metrics["steps"] == 10
    here, there = lines_of(job), lines_of(whole)
    assert [line["step"] for line in here] == list(range(1, 11))
    # B is zero at the start of LoRA and is not after four steps, on the same first batch.
    assert here[0]["loss"] < there[0]["loss"]


def test_a_checkpoint_of_another_recipe_is_refused_with_what_differs(fourth, inputs, tmp_path):
    changed = {**STEPS, "learning_rate": 2e-3, "weight_decay": 0.0}
    job = make_job(tmp_path, *inputs, **changed, resume_from_checkpoint=str(fourth))
    with pytest.raises(UsageError, match="can't go on from this checkpoint") as caught:
        train_in_this_process(job)
    found = caught.value.found
    assert "train.learning_rate: 0.001 there, 0.002 here" in found
    assert "train.weight_decay: the default there, 0.0 here" in found
    assert "save_steps" not in found
    assert caught.value.exit_code == 2


def test_a_checkpoint_of_other_rows_is_refused(fourth, inputs, tmp_path):
    rows = write_encoded(tmp_path / "rows", counting_rows(20, seed=1))
    job = make_job(tmp_path, inputs[0], rows, **STEPS, resume_from_checkpoint=str(fourth))
    with pytest.raises(UsageError) as caught:
        train_in_this_process(job)
    assert "rows: sha256" in caught.value.found


def test_an_altered_checkpoint_is_refused(fourth, inputs, tmp_path):
    weights = fourth / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    job = make_job(tmp_path, *inputs, **STEPS, resume_from_checkpoint=str(fourth))
    with pytest.raises(UsageError) as caught:
        train_in_this_process(job)
    assert "adapter_model.safetensors has" in caught.value.found


def test_weights_of_another_shape_are_refused(fourth, inputs, tmp_path):
    resume = {"resume_from_checkpoint": str(fourth), "resume_only_model": True}
    job = make_job(tmp_path, *inputs, tuner={"lora_rank": 4}, **STEPS, **resume)
    with pytest.raises(UsageError, match="another model's") as caught:
        train_in_this_process(job)
    count = len(load_file(fourth / "adapter_model.safetensors"))
    assert f"0 missing, 0 unknown, {count} of another shape" in caught.value.found


def recipe(checkpoint, **train):
    return build_recipe(
        {
            "name": "r",
            "model": {"model": "m"},
            "data": {"dataset": ["d.jsonl"]},
            "train": {"resume_from_checkpoint": str(checkpoint), **train},
        }
    ).recipe


def test_identity_is_what_the_checkpoint_holds_not_where_it_lies(fourth, tmp_path):
    moved = shutil.copytree(fourth, tmp_path / "moved")
    assert TRAIN.config(recipe(fourth)) == TRAIN.config(recipe(moved))
    record = moved / checkpoints.RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), "identity": "other"}))
    assert TRAIN.config(recipe(fourth)) != TRAIN.config(recipe(moved))
    with pytest.raises(UsageError, match="there is no checkpoint"):
        TRAIN.config(recipe(tmp_path / "nowhere"))


def test_full_determinism_is_in_force_while_training(inputs, tmp_path):
    """Set for the whole process, so it is taken back here."""
    settings = {**STEPS, "max_steps": 1, "full_determinism": True}
    try:
        train_in_this_process(make_job(tmp_path, *inputs, **settings))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
