"""Processes that share the tokens of each sequence: the logits, gradients and curve of one."""

import copy
import shutil
from typing import Any

import pytest
import torch
from forked import together, train_together
from safetensors.torch import load_file
from test_training_side_by_side import MODELS, assert_same_gradients, build, some_rows
from training_setup import counting_inputs, folder_bytes, make_job

from swiftcore.errors import UsageError
from swiftcore.recipe import build_recipe
from swiftcore.recipe.processes import Processes
from swiftcore.training import TrainJob
from swiftcore.training.batches import Collator, SideBySide
from swiftcore.training.distributed.sharing import Share
from swiftcore.training.distributed.team import with_meeting_point
from swiftcore.training.distributed.world import World
from swiftcore.training.loss import LabelLossOptions, label_loss, label_losses
from swiftcore.training.metrics import read_lines
from swiftcore.training.token_group import TokenGroup
from swiftcore.training.token_sharing import share_tokens
from swiftcore.training.workspace import Workspace

pytestmark = pytest.mark.road

NO_DROPOUT = {"lora_dropout": 0.0}
STEPS = {"max_steps": 4, "logging_steps": 1, "save_steps": 4}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """21 rows: groups that take two each have a last round that is not full."""
    return counting_inputs(tmp_path_factory.mktemp("sharing"), 21, 3)


def job_of(root, inputs, num_processes=1, **settings) -> TrainJob:
    job = make_job(root, *inputs, **{"tuner": NO_DROPOUT, **STEPS, **settings})
    processes = Processes(per_node=num_processes)
    return job.model_copy(update={"processes": processes, "peak_flops": 1e9})


def curve(job: TrainJob, name: str = "loss") -> list[float]:
    lines = read_lines(Workspace(job.work_dir).metrics)
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize(
    ("num_processes", "tuner", "settings", "strategy"),
    [
        (2, NO_DROPOUT, {"acc_strategy": "seq"}, {}),
        (2, {"train_type": "full"}, {"packing": True, "packing_length": 39}, {"fsdp": "fsdp2"}),
        (4, NO_DROPOUT, {"padding_free": True, "gradient_checkpointing": True}, {}),
    ],
    ids=["padded", "packed, fsdp2", "twice two"],
)
def test_processes_that_share_tokens_log_the_curve_of_one(
    inputs, tmp_path, num_processes, tuner, settings, strategy
):
    plan = {"gradient_accumulation_steps": 2, "tuner": tuner, **settings}
    readers = num_processes // 2
    one = job_of(tmp_path / "1", inputs, per_device_train_batch_size=2 * readers, **plan)
    shared = {"per_device_train_batch_size": 2, "sequence_parallel_size": 2, **plan, **strategy}
    several = job_of(tmp_path / "n", inputs, num_processes, **shared)
    (alone,) = train_together(one)
    results = train_together(several)
    for name in ("loss", "eval_loss", "grad_norm", "seq_acc", "eval_seq_acc"):
        assert curve(several, name) == pytest.approx(curve(one, name), rel=1e-5)
    assert len(curve(one)) == alone.metrics["steps"] == 4
    for name in ("tokens", "label_tokens", "trainable_parameters", "total_parameters"):
        assert results[0].metrics[name] == alone.metrics[name]
    assert any("2 processes share the tokens" in note for note in results[0].notes)
    here, there = (load_file(next(job.out_dir.glob("*.safetensors"))) for job in (one, several))
    for name, weight in here.items():
        assert torch.allclose(there[name], weight, atol=1e-4), name


# Four heads of queries and two of keys (four, GPT-2): keys are repeated for four processes.
MODELS_OF_FOUR = ("llama", "gemma2 eager, capped, windows", "gpt2 learned positions")
FIELDS = ("input_ids", "labels", "loss_weights", "row_lengths")


def compare_with_whole(number: int, job: TrainJob) -> int:
    """Compare loss and gradients of shared rows with those of whole ones, padded and packed."""
    world = World.join(job, number)
    group = TokenGroup.of(world)
    assert group is not None
    padded, packed = Collator(0)(some_rows()), SideBySide()(some_rows())
    for name in MODELS_OF_FOUR:
        architecture, options = MODELS[name]
        plain = build(architecture, **options)
        expected = label_loss(plain, *(padded.get(field) for field in FIELDS))
        expected.backward()
        for batch in (padded, packed):
            shared: Any = copy.deepcopy(plain)
            shared.zero_grad()
            assert "shown on this model" in share_tokens(shared, group, world, longest=20)
            batch_of = (batch.get(field) for field in FIELDS)
            own = label_losses(shared, *batch_of, options=LabelLossOptions(group=group)).total
            own.backward()
            assert world.sum([own.item()]) == pytest.approx([expected.item()], rel=1e-5)
            for weight in shared.parameters():
                torch.distributed.all_reduce(weight.grad)
            assert_same_gradients(shared, plain)
    sinks = build(*MODELS["gpt-oss sinks, windows"][:1], num_local_experts=4, sliding_window=4)
    with pytest.raises(UsageError, match="can't share the tokens of a gpt_oss model"):
        share_tokens(sinks, group, world, longest=20)
    six_heads = build("Llama", hidden_size=48, num_attention_heads=6, num_key_value_heads=3)
    with pytest.raises(UsageError, match="can't be dealt out") as caught:
        share_tokens(six_heads, group, world, longest=20)
    assert caught.value.found == "6 heads, 4 processes"
    return world.team


def test_losses_and_gradients_of_shared_tokens_add_up_to_those_of_whole_rows(inputs, tmp_path):
    job = job_of(tmp_path, inputs, 4, sequence_parallel_size=4)
    processes = with_meeting_point(job.processes)
    job = job.model_copy(update={"processes": processes})
    assert together(compare_with_whole, [(job,)] * 4) == [0] * 4


def test_heads_of_keys_are_repeated_no_more_than_needed():
    def repeats(size: int, heads: int, key_heads: int) -> int:
        return TokenGroup(size, 0, None).repeats(heads, key_heads)

    assert [repeats(2, 8, n) for n in (8, 4, 2, 1)] == [1, 1, 1, 2]
    # Six heads of keys can't be repeated to a multiple of four short of all twelve.
    assert [repeats(4, 8, 2), repeats(4, 12, 6), repeats(8, 32, 4)] == [2, 2, 2]
    assert repeats(4, 12, 3) == 4


def test_a_stopped_run_goes_on_with_the_same_bytes(inputs, tmp_path):
    settings = {"tuner": {"lora_dropout": 0.1}, "sequence_parallel_size": 2, "packing": True}
    job = job_of(tmp_path, inputs, 2, **settings, packing_length=40, save_steps=2)
    train_together(job)
    losses, written = curve(job), folder_bytes(job.out_dir)
    shutil.rmtree(job.out_dir)
    shutil.rmtree(Workspace(job.work_dir).checkpoints / "checkpoint-4")
    assert [result.resumed_from for result in train_together(job)] == [2, 2]
    assert (curve(job), folder_bytes(job.out_dir)) == (losses, written)


def test_processes_that_share_tokens_read_the_same_rows_and_count_once(tmp_path):
    shares = [list(Share(range(14), 3, World(4, rank, rank, sharers=2))) for rank in range(4)]
    assert shares[0] == shares[1] != shares[2] == shares[3]
    assert sorted(shares[0] + shares[2]) == list(range(14))
    plan = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": None}
    job = job_of(tmp_path, (tmp_path, tmp_path), 4, sequence_parallel_size=2, **plan)
    assert (job.readers(), job.batch_plan()) == (2, (2, 4))


@pytest.mark.parametrize(
    ("train", "others", "match"),
    [
        ({}, {"model": {"task_type": "embedding"}}, "scores whole texts"),
        ({"neftune_noise_alpha": 5.0}, {}, "length of a sequence"),
        ({"router_aux_loss_coef": 0.01}, {}, "balances experts"),
        ({}, {"tuner": {"train_type": "longlora"}}, "shifts tokens"),
    ],
)
def test_what_needs_whole_sequences_is_refused(monkeypatch, train, others, match):
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    values: dict[str, Any] = {"data": {"dataset": ["d.jsonl"]}, **others}
    values["model"] = {"model": "m", **values.get("model", {})}
    with pytest.raises(UsageError, match=match):
        build_recipe({**values, "train": {"sequence_parallel_size": 2, **train}})


def test_processes_that_make_no_whole_groups_are_refused(monkeypatch):
    values = {"model": {"model": "m"}, "data": {"dataset": ["d.jsonl"]}}
    shared = {**values, "train": {"sequence_parallel_size": 2, "gradient_accumulation_steps": 3}}
    with pytest.raises(UsageError, match="groups that share") as caught:
        build_recipe(shared)
    assert "NPROC_PER_NODE=2" in caught.value.do
    monkeypatch.setenv("NPROC_PER_NODE", "4")
    assert build_recipe(shared).recipe.train.data_parallel_size == 2
