"""Rows side by side against the same rows one by one: logits, loss, gradients, and whole runs."""

import copy

import pytest
import torch
import transformers
from torch.nn import functional
from training_setup import (
    counting_inputs,
    counting_model,
    counting_rows,
    make_job,
    tiny_base,
    train_in_this_process,
)

from swiftcore.errors import UsageError
from swiftcore.models import load_model
from swiftcore.recipe import TunerSection
from swiftcore.training import checkpoints, row_attention
from swiftcore.training.arguments import total_steps, training_arguments
from swiftcore.training.batches import SideBySide, plan_batches
from swiftcore.training.loss import install_label_loss, label_loss
from swiftcore.training.metrics import MetricsLog, read_lines
from swiftcore.training.objectives import objective_for
from swiftcore.training.row_attention import attend_by_row
from swiftcore.training.row_layout import RowLayout, laid_out
from swiftcore.training.rows import read_rows
from swiftcore.training.stopping import StopRequest
from swiftcore.training.trainer import SwiftTrainer
from swiftcore.training.workspace import Workspace
from swiftcore.tuners import prepare_model

SHAPE = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# Windows are shorter than rows, so that a window over the border of a row would be found.
MODELS = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen2 windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {}),
    "mistral windows": ("Mistral", {"sliding_window": 4}),
    "gemma": ("Gemma", {}),
    "gemma2 eager, capped, windows": ("Gemma2", {"sliding_window": 4}),
    "gemma3 windows": ("Gemma3Text", {"sliding_window": 4}),
    "phi3": ("Phi3", {}),
    "qwen3 experts": ("Qwen3Moe", EXPERTS),
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "gpt-oss sinks, windows": ("GptOss", {"num_local_experts": 4, "sliding_window": 4}),
    "gpt2 learned positions": ("GPT2", {}),
}


def build(architecture, **options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")
    names = [f"{architecture.removesuffix('Text')}ForCausalLM", f"{architecture}LMHeadModel"]
    kind = next(getattr(transformers, name) for name in names if hasattr(transformers, name))
    return kind(config(**{**SHAPE, **options})).eval()


def some_rows():
    """Rows of 1 to 19 tokens, some with weights, one that begins with a label."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number, length in enumerate((7, 19, 1, 12, 2)):
        ids = torch.randint(3, 100, (length,), generator=generator).tolist()
        labels = [-100] * min(number % 3, length) + ids[number % 3 :]
        weights = torch.rand(length, generator=generator).tolist() if number % 2 else None
        rows.append({"input_ids": ids, "labels": labels, "loss_scale": weights, "row": number})
    return rows


def one_by_one(model, rows):
    """Return logits of each row, and the sum of weight * cross-entropy, of a plain model."""
    logits = [model(input_ids=torch.tensor([r["input_ids"]]), use_cache=False).logits for r in rows]
    total = torch.zeros(())
    for row, found in zip(rows, logits, strict=True):
        target = torch.tensor(row["labels"][1:], dtype=torch.long)
        losses = functional.cross_entropy(found[0, :-1].float(), target, reduction="none")
        weights = row["loss_scale"] or [1.0] * len(row["labels"])
        total = total + (losses * torch.tensor(weights[1:])).sum()
    return logits, total


def packed_loss(model, rows):
    batch = SideBySide()(rows)
    fields = ("input_ids", "labels", "loss_weights", "row_lengths")
    return label_loss(model, *(batch[name] for name in fields))


def assert_same_gradients(ours, theirs):
    compared = 0
    for (name, found), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None), name
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=2e-5, msg=name)
            compared += bool(expected.grad.abs().sum() > 0)
    assert compared


@pytest.mark.parametrize("name", MODELS)
def test_packed_logits_loss_and_gradients_equal_those_one_by_one(name):
    architecture, options = MODELS[name]
    plain = build(architecture, **options)
    model = copy.deepcopy(plain)
    rows = some_rows()
    expected_logits, expected = one_by_one(plain, rows)
    attend_by_row(model)

    layout = RowLayout(tuple(len(row["input_ids"]) for row in rows))
    with torch.no_grad(), laid_out(layout):
        ids = SideBySide()(rows)["input_ids"]
        found = model(input_ids=ids, position_ids=layout.position_ids(), use_cache=False).logits
    torch.testing.assert_close(found, torch.cat(expected_logits, 1), rtol=1e-4, atol=1e-4)

    loss = packed_loss(model, rows)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    assert_same_gradients(model, plain)

    # Without a layout the model is the one it was.
    with torch.no_grad():
        again, _ = one_by_one(model, rows)
    torch.testing.assert_close(again, [row.detach() for row in expected_logits])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_attentions_and_gradient_checkpointing_give_the_same(attention):
    plain = build("Qwen3", attn_implementation=attention)
    model = copy.deepcopy(plain)
    attend_by_row(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    rows = some_rows()
    loss = packed_loss(model, rows)
    expected = one_by_one(plain, rows)[1]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    assert_same_gradients(model, plain)


@pytest.mark.parametrize("use_dora", [False, True])
def test_adapter_gradients_equal_those_one_by_one(tmp_path, use_dora):
    section = TunerSection(lora_dropout=0.0, init_weights="false", use_dora=use_dora)
    torch.manual_seed(0)
    plain = prepare_model(load_model(tiny_base(tmp_path / "m")), section)
    model = copy.deepcopy(plain)
    attend_by_row(model)
    install_label_loss(model)
    rows = some_rows()
    batch = SideBySide()(rows)
    fields = ("input_ids", "labels", "loss_weights", "row_lengths")
    loss = model(**{name: batch[name] for name in fields})["loss"]
    expected = one_by_one(plain, rows)[1]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    assert_same_gradients(model, plain)


def test_no_label_crosses_the_border_of_a_row():
    rows = some_rows()
    batch = SideBySide()([rows[:2], rows[2:]])
    assert batch["rows"].tolist() == [0, 1, 2, 3, 4]
    starts = [0, 7, 26, 27, 39]
    assert batch["labels"][0, starts].tolist() == [-100] * 5
    kept = [label for row in rows for label in row["labels"][1:]]
    inside = [place for place in range(41) if place not in starts]
    assert batch["labels"][0, inside].tolist() == kept
    layout = RowLayout(tuple(batch["row_lengths"].tolist()))
    assert layout.position_ids()[0, starts].tolist() == [0] * 5
    assert layout.bounds == [(0, 7), (7, 26), (26, 27), (27, 39), (39, 41)]


@pytest.mark.parametrize(
    ("architecture", "options", "found"),
    [
        # Weights of 0.02, as of a new model, hide a leak from comparisons, not from gradients.
        ("Mamba", {"initializer_range": 0.02}, "depend on tokens 0, 1, 2, 3, 4"),
        ("Lfm2", {"layer_types": ["conv", "full_attention"], "initializer_range": 0.02}, "3, 4"),
        ("Qwen3Next", {}, "depend on tokens 0, 1, 2, 3, 4"),
        ("RecurrentGemma", {}, "depend on tokens 0"),
        ("Bert", {}, "depend on tokens 9, 10"),
        ("Bloom", {}, "attention 'eager' that can't be exchanged"),
    ],
)
def test_models_that_mix_rows_are_refused_and_left_as_they_were(architecture, options, found):
    model = build(architecture, **options)
    before = model.config._attn_implementation
    with pytest.raises(UsageError, match="can't be put side by side") as caught:
        attend_by_row(model)
    assert found in caught.value.found
    assert model.config._attn_implementation == before


def test_the_check_finds_attention_across_rows_and_positions_that_go_on(monkeypatch):
    def across(attend, module, query, key, value, attention_mask, **kwargs):
        return attend(module, query, key, value, None, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(row_attention, "_attend", across)
        with pytest.raises(UsageError) as caught:
            attend_by_row(build("Llama"))
        assert "depend on tokens 0, 1, 2, 3, 4" in caught.value.found
    monkeypatch.setattr(
        RowLayout, "position_ids", lambda self, device: torch.arange(self.num_tokens)[None]
    )
    with pytest.raises(UsageError) as caught:
        attend_by_row(build("GPT2"))
    assert "logits that differ" in caught.value.found


def test_rotary_embeddings_that_the_longest_row_changes_are_refused():
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    rope |= {"rope_theta": 10000.0, "original_max_position_embeddings": 16}
    model = build("Phi3", rope_parameters=rope, original_max_position_embeddings=16)
    model.config.rope_parameters["original_max_position_embeddings"] = 16
    attend_by_row(model, longest=16)
    with pytest.raises(UsageError) as caught:
        attend_by_row(model, longest=17)
    assert "longrope" in caught.value.found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return counting_inputs(tmp_path_factory.mktemp("side-by-side"), 20, 6)


class Crash(Exception):
    pass


class CrashAfter(transformers.TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Crash


def train_here(job, *, crash_after=None):
    """Train in this process, as the training process does, and return losses and counts."""
    rows, eval_rows = (read_rows(job.encoded_dir, split) for split in ("train", "val"))
    batches = plan_batches(job, rows, eval_rows)
    args = training_arguments(job, total_steps(job, len(batches.order)), True)
    transformers.set_seed(job.train.seed)
    model = prepare_model(load_model(job.model_dir), job.tuner)
    if batches.side_by_side:
        attend_by_row(model, batches.longest)
    objective = objective_for(job, pad_id=0, side_by_side=batches.side_by_side)
    trainer = SwiftTrainer(
        model, args, job=job, batches=batches, objective=objective, stop=StopRequest()
    )
    files = Workspace(job.work_dir)
    found, _ = checkpoints.newest_verified(files.checkpoints, job.identity())
    if found is not None:
        MetricsLog(files.metrics).keep_until(found.step)
        trainer.resume_tally(found.path)
    trainer.add_callback(CrashAfter(crash_after))
    trainer.train(resume_from_checkpoint=found and str(found.path))
    lines = read_lines(files.metrics)
    losses = [line.get("loss", line.get("eval_loss")) for line in lines]
    return losses, (trainer.tally.tokens, trainer.tally.label_tokens, trainer.tally.total_steps)


def test_a_padding_free_run_has_the_losses_of_the_padded_one(inputs, tmp_path):
    """The padded one takes 4 rows a forward, the other 2, and accumulates over two of them."""
    common = {"max_steps": 4, "logging_steps": 1, "save_steps": 2, "per_device_eval_batch_size": 3}
    padded = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    free = {"padding_free": True, "gradient_checkpointing": True}
    runs = [
        train_here(make_job(tmp_path / name, *inputs, tuner={"lora_dropout": 0.0}, **settings))
        for name, settings in (("padded", {**common, **padded}), ("free", {**common, **free}))
    ]
    assert len(runs[0][0]) == 6
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-6)
    assert runs[0][1] == runs[1][1]


@pytest.mark.parametrize("strategy", ["binpack", "sequential"])
def test_packed_validation_has_the_loss_of_single_rows(inputs, tmp_path, strategy):
    common = {"max_steps": 1, "save_steps": 1, "learning_rate": 1e-12}
    packed = {"packing": True, "packing_length": 32, "packing_strategy": strategy}
    runs = [
        train_here(make_job(tmp_path / name, *inputs, tuner={"lora_dropout": 0.0}, **settings))
        for name, settings in (("padded", common), ("packed", {**common, **packed}))
    ]
    assert runs[0][0][-1] == pytest.approx(runs[1][0][-1], rel=1e-6)


PACKED = {"packing": True, "packing_length": 64, "per_device_train_batch_size": 1}


def test_a_packed_run_that_broke_off_ends_as_if_nothing_had_happened(inputs, tmp_path):
    """LoRA with dropout, 5 sequences and 3 steps an epoch; resumed in the middle of the 2nd."""
    train = {**PACKED, "num_train_epochs": 5, "save_steps": 5, "logging_steps": 2}
    whole = train_here(make_job(tmp_path / "whole", *inputs, **train))
    assert whole[1][2] == 15
    job = make_job(tmp_path / "broken", *inputs, **train)
    with pytest.raises(Crash):
        train_here(job, crash_after=9)
    assert train_here(job) == whole


def test_a_packed_run_records_how_full_its_sequences_are(inputs, tmp_path):
    job = make_job(tmp_path, *inputs, **PACKED, num_train_epochs=2)
    result = train_in_this_process(job)
    lengths = [len(row["input_ids"]) for row in counting_rows(26)[:20]]
    assert result.metrics["steps"] == 6
    assert result.metrics["packed_sequences"] == 5
    assert result.metrics["packing_efficiency"] == pytest.approx(sum(lengths) / (5 * 64))
    assert result.metrics["tokens"] == 2 * sum(lengths)
    assert result.notes[0].startswith("20 rows packed into 5 sequences of at most 64 tokens")
    assert "attention row by row" in result.notes[1]
    assert "swiftcore_rows" not in (job.out_dir / "adapter_config.json").read_text()


def test_a_packed_run_without_any_length_is_refused(inputs, tmp_path):
    job = make_job(tmp_path, *inputs, packing=True)
    with pytest.raises(UsageError, match="how long a packed sequence may be"):
        plan_batches(job, read_rows(job.encoded_dir, "train"), None)


def test_in_bfloat16_a_run_with_every_trick_has_the_losses_of_one_with_none(tmp_path):
    """To three decimals, as far as sums of numbers of eight bits can agree."""
    plain = {"padding_free": False, "fold_lora": False, "label_logits": False}
    untrained, encoded = counting_inputs(tmp_path, 24, 0)
    base = counting_model(untrained, tmp_path / "counting")
    losses = []
    for name, tricks in (("fast", {}), ("plain", plain)):
        settings = {"max_steps": 6, "logging_steps": 1, "learning_rate": 1e-3, **tricks}
        tuner = {"lora_rank": 4, "lora_dropout": 0.0}
        job = make_job(tmp_path / name, base, encoded, tuner=tuner, **settings)
        # Where products in bfloat16 are emulated, measuring them takes longer than the training.
        changes = {"torch_dtype": "bfloat16", "peak_flops": 1e12}
        result = train_in_this_process(job.model_copy(update=changes))
        assert any("folded" in note for note in result.notes) == (name == "fast")
        lines = read_lines(Workspace(job.work_dir).metrics)
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert losses[0] != losses[1]  # or one of the two did not do what its name says
