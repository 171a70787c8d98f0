"""Losses, metrics and callbacks from files of the user's own."""

import shutil

import pytest
from training_setup import (
    counting_rows,
    make_job,
    timeless,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import UsageError
from swiftcore.recipe import build_recipe
from swiftcore.stages.train import TRAIN
from swiftcore.training.metrics import read_lines
from swiftcore.training.plugins import load_plugins

PLUGIN = """
from pathlib import Path

import torch
from transformers import TrainerCallback

from swiftcore.training.plugins import register_callback, register_loss, register_metric


@register_loss("doubled")
def doubled(logits, targets):
    return 2 * torch.nn.functional.cross_entropy(logits, targets, reduction="none")


@register_metric("same_length")
def same_length(answer, reference):
    return 1.0 if answer == reference else 0.25


@register_callback("diary")
class Diary(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        with (Path(args.output_dir).parent / "diary").open("a") as stream:
            print(state.global_step, file=stream)
"""


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    return file


def recipe(*files, **train):
    section = {"external_plugins": [str(file) for file in files], **train}
    values = {"name": "r", "model": {"model": "m"}, "data": {"dataset": ["d.jsonl"]}}
    return build_recipe({**values, "train": section}).recipe


def test_loss_metric_and_callback_of_a_file_take_part_in_a_training(plugin, tmp_path):
    rows = counting_rows(8)
    inputs = tiny_base(tmp_path / "base"), write_encoded(tmp_path / "rows", rows[:6], rows[6:])
    # One step at a rate of nothing: the losses are those of the same weights.
    settings = {"max_steps": 1, "save_steps": 1, "learning_rate": 1e-12}
    mine = {
        "external_plugins": [str(plugin)], "loss_type": "doubled", "callbacks": ["diary"],
        "predict_with_generate": True, "max_new_tokens": 2, "metric": "same_length",
        "metric_for_best_model": "same_length",
    }  # fmt: skip
    lines = []
    for name, extra in (("plain", {}), ("mine", mine)):
        still = {"lora_dropout": 0.0}
        job = make_job(tmp_path / name, *inputs, tuner=still, **settings, **extra)
        result = train_in_this_process(job)
        lines.append(timeless(read_lines(job.work_dir / "metrics.jsonl")))
    plain, own = lines
    assert own[0]["loss"] == pytest.approx(2 * plain[0]["loss"], rel=1e-5)
    assert own[0]["grad_norm"] == pytest.approx(2 * plain[0]["grad_norm"], rel=1e-4)
    assert own[1]["eval_loss"] == pytest.approx(2 * plain[1]["eval_loss"], rel=1e-5)
    assert own[1]["eval_same_length"] == 0.25
    assert result.metrics["best_metric"] == 0.25
    assert (tmp_path / "mine" / "work" / "diary").read_text() == "1\n"


def test_what_a_file_holds_is_identity_and_not_where_it_lies(plugin, tmp_path):
    moved = shutil.copy(plugin, tmp_path / "moved.py")
    assert TRAIN.config(recipe(plugin)) == TRAIN.config(recipe(moved))
    plugin.write_text(PLUGIN.replace("0.25", "0.5"))
    assert TRAIN.config(recipe(plugin)) != TRAIN.config(recipe(moved))


def test_bad_files_and_unknown_names_are_refused(plugin, tmp_path):
    with pytest.raises(UsageError, match="no such plug-in") as caught:
        TRAIN.config(recipe(tmp_path / "nowhere.py"))
    assert caught.value.where == "train.external_plugins"
    plugin.write_text("1 / 0")
    with pytest.raises(UsageError, match="a plug-in failed") as caught:
        load_plugins([str(plugin)])
    assert "ZeroDivisionError" in str(caught.value.found)
    plugin.write_text(PLUGIN)
    inputs = tiny_base(tmp_path / "base"), write_encoded(tmp_path / "rows", counting_rows(4))
    mine = {"external_plugins": [str(plugin)], "loss_type": "tripled"}
    with pytest.raises(UsageError, match="no such loss") as caught:
        train_in_this_process(make_job(tmp_path, *inputs, **mine))
    assert caught.value.expected == "doubled"
