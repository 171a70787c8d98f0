"""Losses besides cross-entropy, and figures of label tokens: against their definitions."""

import json
import math

import pytest
import torch
from torch.nn import functional
from training_setup import (
    counting_rows,
    make_job,
    timeless,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.data import build_dataset
from swiftcore.errors import DataError, UsageError
from swiftcore.models import load_model
from swiftcore.recipe import DataSection, Runtime, TrainSection
from swiftcore.template.channels import load_channels, write_channels
from swiftcore.training.batches import Collator, SideBySide
from swiftcore.training.heads import Head
from swiftcore.training.loss import (
    LabelLossOptions,
    dft_loss,
    install_label_loss,
    label_loss,
    label_losses,
)
from swiftcore.training.metrics import read_lines
from swiftcore.training.token_figures import TokenFigures, TokenScore

DFT = LabelLossOptions(token_loss=dft_loss, figures=True)
HEADS = [Head("product"), Head("replayed"), Head("whole")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("losses") / "base", tie_word_embeddings=False)


def fields_of(rows):
    batch = Collator(pad_id=0)(rows)
    return {name: batch[name] for name in ("input_ids", "labels")}


def logits_and_targets(model, batch):
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    return logits[targets != -100], targets[targets != -100]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_dft_is_minus_p_log_p_with_p_held_fixed(base, head):
    """Equation 9 of arXiv:2508.05629; its gradient is p (softmax - one-hot) at the logits."""
    model, batch = load_model(base), fields_of(counting_rows(40))
    logits, targets = logits_and_targets(model, batch)
    p = torch.softmax(logits.detach(), -1).gather(1, targets[:, None])[:, 0]
    expected = -(p * torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]).sum()
    expected.backward()
    wanted = {name: q.grad.clone() for name, q in model.named_parameters()}
    model.zero_grad()
    trained = tuple(name for name, _ in model.named_parameters() if name == "lm_head.weight")
    found = label_losses(model, **batch, head=Head(head.kind, trained), options=DFT)
    found.total.backward()
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.losses_N.sum().item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.hits_N.equal(logits.argmax(-1) == targets)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6, msg=name)


def test_dft_of_certain_and_uniform_tokens():
    certain, uniform = torch.tensor([[100.0, 0.0]]), torch.zeros(1, 4)
    assert dft_loss(certain, torch.tensor([0])).item() == pytest.approx(0)
    assert dft_loss(uniform, torch.tensor([1])).item() == pytest.approx(math.log(4) / 4)


def mixtral(seed=0):
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(seed)
    config = MixtralConfig(
        vocab_size=100, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_local_experts=4,
        num_experts_per_tok=2, max_position_embeddings=64,
    )  # fmt: skip
    return MixtralForCausalLM(config).eval()


def balance_by_hand(model, batch, lengths) -> torch.Tensor:
    """Experts x sum(share of picks x mean probability), over real tokens of all layers.

    Source: Fedus et al., "Switch Transformers", arXiv:2101.03961, equations 4 to 6.
    """
    mask = torch.arange(batch["input_ids"].shape[1])[None] < lengths[:, None]
    found = model(
        input_ids=batch["input_ids"], attention_mask=mask.long(), output_router_logits=True
    )
    real = mask.flatten()
    probs = torch.cat([layer.softmax(-1)[real] for layer in found.router_logits])
    picks = functional.one_hot(probs.topk(2, -1).indices, 4).float().sum(1)
    return 4 * (picks.mean(0) * probs.mean(0)).sum()


@pytest.mark.parametrize("chunks", [True, False])
def test_balance_loss_of_experts_leaves_padding_out_and_reaches_the_router(chunks):
    model, rows = mixtral(), counting_rows(3)
    batch, lengths = fields_of(rows), Collator(pad_id=0)(rows)["lengths"]
    expected = balance_by_hand(model, batch, lengths)
    plain = label_loss(model, **batch).item()
    head = install_label_loss(model, chunks, LabelLossOptions(balance=0.5))
    assert (head.kind == "whole") is not chunks
    found = model(**batch, lengths=lengths)
    assert found["balance_loss"].item() == pytest.approx(0.5 * expected.item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx(plain, rel=1e-5)
    found["balance_loss"].backward()
    routers = [p for name, p in model.named_parameters() if name.endswith("gate.weight")]
    assert len(routers) == 2
    assert all(router.grad.abs().sum() > 0 for router in routers)


def test_a_model_without_experts_has_nothing_to_balance(base):
    with pytest.raises(UsageError, match="no experts") as caught:
        install_label_loss(load_model(base), options=LabelLossOptions(balance=0.1))
    assert caught.value.where == "train.router_aux_loss_coef"


@pytest.mark.parametrize("collate", [Collator(pad_id=0), SideBySide()], ids=["padded", "joined"])
def test_figures_tell_rows_and_channels_apart(collate):
    rows = [
        {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "loss_scale": None, "row": 7},
        {"input_ids": [1, 2], "labels": [-100, 2], "loss_scale": None, "row": 5},
        {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4], "loss_scale": None, "row": 9},
    ]
    batch = collate(rows)
    outputs = {
        "token_losses": torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]),
        "token_hits": torch.tensor([True, True, False, True, False]),
    }

    def scored(accuracy):
        score = TokenScore(TokenFigures(accuracy, {7: "a", 9: "a"}))
        score.add(batch, outputs)
        return score.metrics()

    channels = {"loss_None": 4.0, "loss_a": (1 + 2 + 8 + 16) / 4}
    assert scored("token") == {**channels, "token_acc": 3 / 5}
    assert scored("seq") == {**channels, "seq_acc": 1 / 3}


def channel_of(row: int) -> str | None:
    return "even" if row % 2 == 0 else "odd" if row == 1 else None


def dataset_of(folder, channels):
    """A dataset folder with a training and a validation row for each of the channels."""
    rows = [{"query": f"q{n}", "response": f"a{n}"} for n in range(len(channels))]
    for row, channel in zip(rows, channels, strict=True):
        row |= {"channel": channel} if channel else {}
    folder.mkdir()
    for name, head in (("train", "t"), ("val", "v")):
        lines = (json.dumps({**row, "query": head + row["query"]}) for row in rows)
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    files = {"dataset": [str(folder / "train.jsonl")], "val_dataset": [str(folder / "val.jsonl")]}
    build_dataset(DataSection(**files, dataset_shuffle=False), folder / "rows")
    return folder / "rows"


def test_a_training_logs_channels_and_accuracy_the_same_with_accumulation(base, tmp_path):
    """One forward of four rows against two of two; every loss is the mean of its channels."""
    rows = counting_rows(24)
    encoded = write_encoded(tmp_path / "encoded", rows[:20], rows[20:])
    write_channels(dataset_of(tmp_path / "data", [channel_of(n) for n in range(24)]), encoded)
    assert load_channels(encoded, "train") == {n: channel_of(n) for n in range(24) if channel_of(n)}
    settings = {
        "max_steps": 5, "logging_steps": 1, "save_steps": 5, "learning_rate": 1e-3,
        "enable_channel_loss": True, "acc_strategy": "token", "enable_dft_loss": True,
    }  # fmt: skip
    whole = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    runs = []
    for name, extra in (("parts", {"padding_free": True}), ("whole", whole)):
        still = {"lora_dropout": 0.0}
        job = make_job(tmp_path / name, base, encoded, tuner=still, **settings, **extra)
        train_in_this_process(job)
        runs.append(timeless(read_lines(job.work_dir / "metrics.jsonl")))
    for one, other in zip(*runs, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    *steps, evaluation = runs[0]
    assert {name for line in steps for name in line if name.startswith("loss_")} == {
        "loss_None", "loss_even", "loss_odd",
    }  # fmt: skip
    assert "token_acc" in steps[0]
    assert {"eval_token_acc", "eval_loss_even"} <= set(evaluation)
    for line in steps:
        channels = [value for name, value in line.items() if name.startswith("loss_")]
        assert 0.999 * min(channels) <= line["loss"] <= 1.001 * max(channels)


def test_rows_without_channels_and_settings_without_effect_are_refused(tmp_path):
    silent = dataset_of(tmp_path / "data", [None, None])
    with pytest.raises(DataError, match="no row has a channel"):
        write_channels(silent, tmp_path)
    with pytest.raises(ValueError, match="supervised"):
        TrainSection(method="pt", enable_dft_loss=True)
    with pytest.raises(ValueError, match="dataloader_prefetch_factor does nothing"):
        Runtime(dataloader_prefetch_factor=2)
