"""The label loss against the plain one: value, gradients, weights, wrappers."""

import copy

import pytest
import torch
from torch.nn import functional
from training_setup import counting_rows, tiny_base

from swiftcore.models import load_model
from swiftcore.recipe import TunerSection
from swiftcore.training.batches import Collator, RowOrder
from swiftcore.training.loss import install_label_loss, label_loss
from swiftcore.tuners import prepare_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("loss") / "base")


def batch_of(rows):
    return Collator(pad_id=0)(rows)


def plain_loss(model, batch):
    """Cross-entropy over logits of all positions, with the padding masked in attention."""
    mask = torch.arange(batch["input_ids"].shape[1])[None] < batch["lengths"][:, None]
    logits = model(input_ids=batch["input_ids"], attention_mask=mask.long()).logits[:, :-1]
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), reduction="none"
    )
    weights = batch.get("loss_weights")
    return (losses if weights is None else losses * weights[:, 1:].flatten()).sum()


@pytest.mark.parametrize("num_rows", [1, 5, 60])
@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama"])
def test_label_loss_and_gradients_equal_the_plain_ones(tmp_path, num_rows, architecture):
    """60 rows have more label tokens than one chunk."""
    model = load_model(tiny_base(tmp_path / "m", architecture=architecture))
    batch = batch_of(counting_rows(num_rows))
    other = copy.deepcopy(model)
    expected = plain_loss(other, batch)
    found = label_loss(model, batch["input_ids"], batch["labels"])
    expected.backward()
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_weights_scale_each_token_and_short_rows_count_as_one(base):
    rows = counting_rows(4)
    rows[0]["loss_scale"] = [0.0, 0.0, 2.0, 0.5] + [1.0] * (len(rows[0]["input_ids"]) - 4)
    model = load_model(base)
    batch = batch_of(rows)
    found = label_loss(model, batch["input_ids"], batch["labels"], batch["loss_weights"])
    assert found.item() == pytest.approx(plain_loss(model, batch).item(), rel=1e-5)
    unweighted = label_loss(model, batch["input_ids"], batch["labels"])
    assert found.item() != pytest.approx(unweighted.item(), rel=1e-4)


def test_a_batch_is_the_sum_of_its_rows(base):
    model, rows = load_model(base), counting_rows(8)
    whole = batch_of(rows)
    one = label_loss(model, whole["input_ids"], whole["labels"]).item()
    parts = [batch_of([row]) for row in rows]
    each = sum(label_loss(model, part["input_ids"], part["labels"]).item() for part in parts)
    assert one == pytest.approx(each, rel=1e-5)


@pytest.mark.parametrize("modules_to_save", [[], ["lm_head"]])
def test_loss_works_inside_peft_for_a_frozen_and_a_saved_head(tmp_path, modules_to_save):
    base = tiny_base(tmp_path / "m", tie_word_embeddings=False)
    section = TunerSection(lora_dropout=0.0, init_weights="false", modules_to_save=modules_to_save)
    model = prepare_model(load_model(base), section)
    batch = batch_of(counting_rows(3))
    expected = plain_loss(model, batch)
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    install_label_loss(model)
    loss = model(input_ids=batch["input_ids"], labels=batch["labels"])["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert gradients.keys() == {n for n, p in model.named_parameters() if p.grad is not None}
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-4, msg=name)


def test_heads_that_do_more_than_a_product_go_through_the_model(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.05,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    batch = batch_of(counting_rows(2))
    found = label_loss(model, batch["input_ids"], batch["labels"])
    assert found.item() == pytest.approx(plain_loss(model, batch).item(), rel=1e-5)


def test_bfloat16_autocast_stays_close(base):
    model = load_model(base)
    install_label_loss(model)
    batch = batch_of(counting_rows(4))
    fields = {name: batch[name] for name in ("input_ids", "labels")}
    exact = model(**fields)["loss"].item()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(**fields)["loss"]
    rough.backward()
    assert rough.item() == pytest.approx(exact, rel=1e-2)
    assert rough.item() != exact


def test_row_order_depends_on_seed_and_epoch_alone():
    lengths = [3, 9, 4, 8, 1, 7, 2, 6]
    order = RowOrder(lengths, seed=1, shuffle=True, group_rows=None)
    first = list(order)
    torch.rand(5)
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    assert sorted(order) == list(range(8))
    still = RowOrder(lengths, seed=1, shuffle=False, group_rows=None)
    assert list(still) == list(range(8))
    grouped = list(RowOrder(lengths, seed=1, shuffle=True, group_rows=8))
    assert [lengths[i] for i in grouped] == sorted(lengths, reverse=True)
