"""Optimizers and schedules in whole trainings: resume, LISA, NEFTune, and what is refused."""

import shutil

import pytest
import torch
from training_setup import (
    counting_rows,
    folder_bytes,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import RecipeError, UsageError
from swiftcore.models import load_model
from swiftcore.recipe import build_recipe
from swiftcore.recipe.optimization import optimization_conflict
from swiftcore.training import run_training
from swiftcore.training.optimizers.lisa import BlockTurns
from swiftcore.training.schedules import check_schedule
from swiftcore.training.workspace import Workspace

FULL = {"train_type": "full"}
GALORE = {**FULL, "use_galore": True, "galore_rank": 8, "galore_update_proj_gap": 2}
LISA = {**FULL, "lisa_activated_layers": 1, "lisa_step_interval": 2}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("optimization")
    rows = counting_rows(12)
    base = tiny_base(root / "base", num_hidden_layers=3)
    return base, write_encoded(root / "encoded", rows[:8], rows[8:])


@pytest.mark.parametrize(
    ("tuner", "train"),
    [
        (LISA, {}),
        (GALORE, {}),
        ({**FULL}, {"optimizer": "muon"}),
        ({**FULL}, {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant_with_warmup"}),
    ],
    ids=["lisa", "galore", "muon", "schedule-free"],
)
def test_a_stopped_training_ends_with_the_bytes_of_a_whole_one(tuner, train, inputs, tmp_path):
    # Stopped in the middle of a LISA interval and of a GaLore gap.
    steps = {"max_steps": 5, "save_steps": 3, "logging_steps": 1, "learning_rate": 3e-3}
    jobs = [
        make_job(tmp_path / name, *inputs, tuner=tuner, **{**steps, **train})
        for name in ("whole", "resumed")
    ]
    whole = train_in_this_process(jobs[0])
    assert whole.metrics["last_loss"] < whole.metrics["first_loss"]
    checkpoints = [Workspace(job.work_dir).checkpoints for job in jobs]
    shutil.copytree(checkpoints[0] / "checkpoint-3", checkpoints[1] / "checkpoint-3")
    resumed = train_in_this_process(jobs[1])
    assert resumed.resumed_from == 3
    weights = [
        {name: data for name, data in folder_bytes(job.out_dir).items() if "safetensors" in name}
        for job in jobs
    ]
    assert weights[0] == weights[1]
    assert weights[0]


def test_lora_plus_trains_folded_layers_on_a_schedule_that_follows_validation(inputs, tmp_path):
    tuner = {"lorap_lr_ratio": 4.0, "lora_dropout": 0.0}
    schedule = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_steps": 1}
    job = make_job(tmp_path, *inputs, tuner=tuner, max_steps=4, logging_steps=1, **schedule)
    result = train_in_this_process(job)
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    assert "LoRA folded into one product in 21 layers" in result.notes


def test_q_galore_in_a_process_of_its_own_says_what_it_projects(inputs, tmp_path):
    quantized = {"galore_quantization": True, "galore_proj_quant": True}
    tuner = {**GALORE, **quantized, "galore_rank": 16}
    result = run_training(make_job(tmp_path, *inputs, tuner=tuner, max_steps=6, save_steps=3))
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    # Keys and values of this model have 16 rows.
    assert "GaLore of rank 16 in 15 matrices; 6 whose shorter side" in " ".join(result.notes)


def test_lisa_moves_the_drawn_block_and_what_is_outside_the_blocks(inputs, tmp_path):
    settings = {"max_steps": 2, "save_strategy": "no", "optim": "adamw_torch"}
    job = make_job(tmp_path, *inputs, tuner={**LISA, "lisa_step_interval": 2}, **settings)
    result = train_in_this_process(job)
    before = dict(load_model(inputs[0]).named_parameters())
    drawn = BlockTurns(list(load_model(inputs[0]).model.layers), 1, 2, job.train.seed).drawn(0)
    moved = {
        name
        for name, p in load_model(job.out_dir).named_parameters()
        if not torch.equal(p, before[name])
    }
    blocks = {int(name.split(".")[2]) for name in moved if ".layers." in name}
    assert blocks == drawn
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= moved
    assert result.metrics["trainable_parameters"] == result.metrics["total_parameters"]


def test_lisa_draws_by_seed_and_step_and_forgets_blocks_at_rest():
    layers = [torch.nn.Linear(3, 3) for _ in range(4)]
    optimizer = torch.optim.AdamW([p for layer in layers for p in layer.parameters()])
    turns = BlockTurns(layers, 2, 10, seed=1)
    again, other = BlockTurns(layers, 2, 10, seed=1), BlockTurns(layers, 2, 10, seed=2)
    draws = [turns.drawn(step) for step in range(0, 400, 10)]
    assert draws == [again.drawn(step + 9) for step in range(0, 400, 10)]
    assert draws != [other.drawn(step) for step in range(0, 400, 10)]
    assert all(len(draw) == 2 for draw in draws)
    counts = [sum(block in draw for draw in draws) for block in range(4)]
    assert min(counts) > 8, "each block in about half of 40 draws"

    class State:
        global_step = 0

    for State.global_step in (0, 10, 20, 30):
        turns.on_step_begin(None, State, None, optimizer=optimizer)
        drawn = turns.drawn(State.global_step)
        assert [layer.weight.requires_grad for layer in layers] == [
            block in drawn for block in range(4)
        ]
        for block in drawn:
            layers[block].weight.grad = torch.ones(3, 3)
        optimizer.step()
        optimizer.zero_grad()
        assert set(optimizer.state) == {layers[block].weight for block in drawn}
    turns.on_train_end(None, State, None)
    assert all(layer.weight.requires_grad for layer in layers)


def test_lisa_with_every_block_is_refused(inputs, tmp_path):
    job = make_job(tmp_path, *inputs, tuner={**FULL, "lisa_activated_layers": 3})
    with pytest.raises(UsageError, match="all blocks all the time"):
        train_in_this_process(job)


def recipe_of(tuner: dict, train: dict) -> dict:
    return {
        "name": "r",
        "model": {"model": "m"},
        "data": {"dataset": ["d.jsonl"]},
        "tuner": tuner,
        "train": train,
    }


@pytest.mark.parametrize(
    ("tuner", "train", "said"),
    [
        ({}, {"learning_rate": 1e3}, "destroys the weights"),
        (FULL, {"learning_rate": 11, "optim": "sgd"}, "anything above 10"),
        ({"lorap_lr_ratio": 2e4}, {"learning_rate": 1e-4}, "lorap_lr_ratio is 2"),
        ({"lisa_activated_layers": 2}, {}, "LISA|full training"),
        ({"use_galore": True}, {}, "train_type lora trains small ones"),
        ({**FULL, "lorap_lr_ratio": 16}, {}, "train_type is full"),
        ({**FULL, "use_galore": True, "lisa_activated_layers": 2}, {}, "choose one"),
        ({"galore_rank": 8}, {}, "nothing without tuner.use_galore"),
        ({**FULL, "use_galore": True, "galore_queue_size": 3}, {}, "without tuner.galore_quant"),
        ({"lisa_step_interval": 3}, {}, "nothing without lisa_activated_layers"),
        ({**FULL, "use_galore": True}, {"optim": "lion_8bit"}, "can't step in GaLore"),
        (GALORE, {"optimizer": "muon"}, "does not go with tuner.use_galore"),
        ({}, {"optimizer": "lorap"}, "nothing without tuner.lorap_lr_ratio"),
        ({}, {"optimizer": "muon", "optim": "sgd"}, "brings its own AdamW"),
        ({}, {"optimizer": "muonclip"}, "muon"),
        ({}, {"optim": "adamw"}, "adamw_torch"),
        ({}, {"optim": "lomo"}, "clipped or checked"),
        ({}, {"optim": "galore_adamw"}, "tuner.use_galore"),
        ({}, {"optim": "sgd", "optim_args": {"beta": 1}}, "momentum"),
        ({}, {"optim": "sgd", "adam_beta2": 0.9}, "adam_beta2 does nothing"),
        ({}, {"optim": "schedule_free_adamw"}, "constant"),
        ({}, {"optim": "adafactor", "fsdp": "fsdp2"}, "whole weights"),
        (GALORE, {"fsdp": "fsdp2"}, "tuner.use_galore works on whole weights"),
        ({}, {"optim": "lion_8bit", "deepspeed": "zero2"}, "whole weights"),
        (
            {},
            {
                "optim": "schedule_free_adamw",
                "lr_scheduler_type": "constant",
                "deepspeed": "zero2",
            },
            "only its engine does",
        ),
        (
            {},
            {
                "optim": "schedule_free_adamw",
                "lr_scheduler_type": "constant",
                "adam_beta1": 0.0,
            },
            "adam_beta1",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(tuner, train, said):
    with pytest.raises(RecipeError, match=said):
        build_recipe(recipe_of(tuner, train))


def test_the_training_refuses_what_was_not_checked_as_a_recipe(inputs, tmp_path):
    job = make_job(tmp_path, *inputs, tuner={"lisa_activated_layers": 1})
    assert optimization_conflict(job.train, job.tuner) is not None
    with pytest.raises(UsageError, match="don't go together"):
        train_in_this_process(job)
    paged = make_job(tmp_path, *inputs, optim="paged_adamw_8bit")
    with pytest.raises(UsageError, match="paged") as caught:
        train_in_this_process(paged)
    assert "adamw_8bit" in caught.value.do


SCHEDULES = {
    "linear": {},
    "cosine": {"num_cycles": 0.5},
    "cosine_with_restarts": {"num_cycles": 3},
    "polynomial": {"power": 2.0, "lr_end": 1e-6},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {"timescale": 20},
    "reduce_lr_on_plateau": {"patience": 2},
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2},
    "warmup_stable_decay": {"num_decay_steps": 30, "min_lr_ratio": 0.1},
    "greedy": {"min_lr": 1e-5, "max_lr": 1e-3},
}


def section(tmp_path, **train):
    return make_job(tmp_path, tmp_path, tmp_path, **train).train


def test_every_schedule_of_transformers_can_be_made(tmp_path):
    from transformers import SchedulerType

    assert set(SCHEDULES) == {kind.value for kind in SchedulerType}
    for name, settings in SCHEDULES.items():
        train = section(tmp_path, lr_scheduler_type=name, lr_scheduler_kwargs=settings or None)
        check_schedule(train, 1e-4, 100, has_validation=True)


@pytest.mark.parametrize(
    ("name", "settings", "more", "said"),
    [
        ("cosin", None, {}, "no such"),
        ("cosine", {"min_lr": 1e-6}, {}, "can't be made"),
        ("cosine_with_min_lr", None, {}, "can't be made"),
        ("cosine_with_min_lr", {"min_lr": 1e-2}, {}, "leave the range"),
        ("cosine_with_min_lr", {"min_lr": "low"}, {}, "can't be made"),
        ("polynomial", {"lr_end": 1.0}, {}, "can't be made"),
        ("warmup_stable_decay", None, {}, "can't be made"),
        ("constant", {"num_cycles": 1}, {}, "no settings"),
        ("constant", None, {"warmup_ratio": 0.1}, "does not warm up"),
        ("greedy", None, {}, "bounds"),
        ("reduce_lr_on_plateau", {"min_lr": 1e-3}, {}, "bounds"),
        ("reduce_lr_on_plateau", {"patient": 1}, {}, "can't be made"),
    ],
)
def test_a_schedule_that_its_settings_do_not_fit_is_refused(name, settings, more, said, tmp_path):
    train = section(tmp_path, lr_scheduler_type=name, lr_scheduler_kwargs=settings, **more)
    with pytest.raises(UsageError, match=said):
        check_schedule(train, 1e-4, 100, has_validation=True)


def test_a_schedule_that_follows_validation_needs_validation_rows(tmp_path):
    train = section(tmp_path, lr_scheduler_type="reduce_lr_on_plateau")
    with pytest.raises(UsageError, match="follows the validation loss"):
        check_schedule(train, 1e-4, 100, has_validation=False)


def test_neftune_adds_noise_of_its_papers_size_in_training_alone(inputs):
    """Uniform in +-alpha / sqrt(tokens x width) at each embedding (arXiv:2310.05914)."""
    from transformers.integrations import neftune

    table = load_model(inputs[0]).get_input_embeddings()
    table.neftune_noise_alpha = 5.0
    table.register_forward_hook(neftune.neftune_post_forward_hook)
    ids = torch.arange(40).view(1, 40)
    plain = torch.nn.functional.embedding(ids, table.weight)
    bound = 5.0 / (40 * 32) ** 0.5
    torch.manual_seed(0)
    noise = (table.train()(ids) - plain).detach()
    assert noise.abs().max() <= bound
    assert noise.abs().max() > 0.99 * bound
    # A uniform variable in +-b has the standard deviation b / sqrt(3).
    assert abs(noise.std() - bound / 3**0.5) < 0.03 * bound
    assert torch.equal(table.eval()(ids), plain)


def test_neftune_reaches_the_training(inputs, tmp_path):
    first = [
        train_in_this_process(
            make_job(
                tmp_path / str(alpha),
                *inputs,
                tuner=FULL,
                max_steps=1,
                save_strategy="no",
                neftune_noise_alpha=alpha,
            )
        ).metrics
        for alpha in (0.0, 50.0)
    ]
    assert abs(first[1]["first_loss"] - first[0]["first_loss"]) > 1e-3
