"""Losses, metrics and callbacks from files of the user's own."""

import shutil

import pytest
import torch
from training_setup import (
    counting_rows,
    folder_bytes,
    make_job,
    timeless,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import RecipeError, UsageError
from swiftcore.models import load_model
from swiftcore.recipe import build_recipe
from swiftcore.stages.train import TRAIN
from swiftcore.training.metrics import read_lines
from swiftcore.training.optimizers.own import own_optimizer
from swiftcore.training.plugins import load_plugins

PLUGIN = """
from pathlib import Path

import torch
from transformers import TrainerCallback

from swiftcore.training.plugins import (
    register_callback, register_loss, register_metric, register_optimizer
)


@register_loss("doubled")
def doubled(logits, targets):
    return 2 * torch.nn.functional.cross_entropy(logits, targets, reduction="none")


@register_metric("same_length")
def same_length(answer, reference):
    return 1.0 if answer == reference else 0.25


@register_optimizer("plain_descent")
def plain_descent(groups):
    return torch.optim.SGD(groups)


@register_optimizer("half")
def half(groups):
    return torch.optim.SGD(groups[0]["params"][1:], lr=0.1)


@register_optimizer("nothing")
def nothing(groups):
    return "adam"


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


def test_an_optimizer_of_a_file_steps_its_groups_and_goes_on_from_a_checkpoint(plugin, tmp_path):
    """One step of gradient descent: w - rate * (gradient + decay * w), clipped to norm 1."""
    inputs = tiny_base(tmp_path / "base"), write_encoded(tmp_path / "rows", counting_rows(8))
    mine = {
        "external_plugins": [str(plugin)], "optimizer": "plain_descent", "learning_rate": 0.5,
        "weight_decay": 0.0, "lr_scheduler_type": "constant", "logging_steps": 1, "save_steps": 2,
    }  # fmt: skip
    tuner = {
        "train_type": "full",
        "trainable_parameters": ["model.norm"],
        "freeze_parameters_ratio": 1.0,
    }
    one = make_job(tmp_path / "one", *inputs, tuner=tuner, **mine, max_steps=1)
    train_in_this_process(one)
    before, after = (load_model(folder).model.norm.weight for folder in (inputs[0], one.out_dir))
    (line,) = [x for x in read_lines(one.work_dir / "metrics.jsonl") if "loss" in x]
    moved = float((after - before).detach().norm())
    assert moved == pytest.approx(0.5 * min(1.0, line["grad_norm"]), rel=1e-4)
    whole = make_job(tmp_path / "whole", *inputs, **mine, max_steps=4)
    train_in_this_process(whole)
    half = whole.model_copy(update={"work_dir": tmp_path / "w", "out_dir": tmp_path / "o"})
    shutil.copytree(whole.work_dir, half.work_dir)
    shutil.rmtree(half.work_dir / "checkpoints" / "checkpoint-4")
    assert train_in_this_process(half).resumed_from == 2
    assert folder_bytes(half.out_dir) == folder_bytes(whole.out_dir)


@pytest.mark.parametrize(("name", "found"), [("half", "parameters"), ("nothing", "str")])
def test_what_is_no_optimizer_of_the_model_is_refused(plugin, name, found):
    load_plugins([str(plugin)])
    groups = [{"params": list(torch.nn.Linear(2, 2).parameters()), "lr": 0.1, "weight_decay": 0.0}]
    with pytest.raises(UsageError, match="can't train this model") as caught:
        own_optimizer(name, groups)
    assert found in caught.value.found


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ({"optim": "sgd"}, "remove train.optim"),
        ({"adam_beta1": 0.8}, "does nothing with train.optimizer plain_descent"),
        ({"external_plugins": []}, "is not known"),
        ({"fsdp": "fsdp2"}, "works on whole weights"),
    ],
)
def test_what_does_not_go_with_an_optimizer_of_ones_own_is_refused(plugin, train, reason):
    with pytest.raises(RecipeError, match=reason):
        recipe(plugin, **{"optimizer": "plain_descent", **train})
