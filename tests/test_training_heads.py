"""Logits of label tokens alone, for heads of every kind, against the whole model's."""

import copy

import pytest
import torch
from test_training_loss import batch_of, plain_loss
from test_training_side_by_side import EXPERTS, build
from training_setup import counting_rows

from swiftcore.recipe import TunerSection
from swiftcore.training import heads, loss
from swiftcore.training.heads import examine_head
from swiftcore.training.loss import install_label_loss, label_loss
from swiftcore.tuners import prepare_model

MODELS = {
    "Llama": ("product", {}),
    "Mistral": ("product", {}),
    "Gemma": ("product", {}),
    "Phi3": ("product", {}),
    "Mixtral": ("product", {"num_local_experts": 4}),
    "Qwen3Moe": ("product", EXPERTS),
    "GptOss": ("product", {"num_local_experts": 4}),
    "GPT2": ("product", {}),
    "Olmo2": ("product", {}),
    "Mamba": ("product", {}),
    "Bloom": ("product", {}),
    "Gemma2": ("replayed", {"final_logit_softcapping": 30.0}),
    "Cohere": ("replayed", {}),
    "Granite": ("replayed", {"logits_scaling": 3.0}),
    "Phi": ("replayed", {}),
    "ModernBertDecoder": ("replayed", {}),
}


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    monkeypatch.setattr(loss, "_CHUNK_TOKENS", 10)


def assert_same_loss(model, plain, batch, head=None):
    """Compare the loss, and the gradient of every trained parameter."""
    fields = [batch.get(name) for name in ("input_ids", "labels", "loss_weights")]
    found, expected = label_loss(model, *fields, head=head), plain_loss(plain, batch)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    compared = 0
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert ours.requires_grad == theirs.requires_grad
        if theirs.grad is not None and theirs.grad.norm() > 1e-6:
            off = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
            assert off < 2e-4, (name, off)
            compared += 1
    assert compared


def weighted_batch():
    rows = counting_rows(5)
    for row in rows[::2]:
        row["loss_scale"] = [0.5 * (place % 3) for place in range(len(row["input_ids"]))]
    return batch_of(rows)


@pytest.mark.parametrize("architecture", MODELS)
def test_loss_and_gradients_of_all_weights_equal_those_of_the_whole_model(architecture):
    kind, options = MODELS[architecture]
    model = build(architecture, **options)
    head = examine_head(model)
    assert head.kind == kind, head
    assert head.trained
    assert_same_loss(model, copy.deepcopy(model), weighted_batch(), head)


@pytest.mark.parametrize("settings", [{}, {"modules_to_save": ["lm_head"]}])
@pytest.mark.parametrize("target", [["all-linear"], ["q_proj", "lm_head"]])
@pytest.mark.parametrize("architecture", ["Llama", "Gemma2", "Cohere"])
def test_adapters_in_and_before_the_head_get_their_gradients(architecture, settings, target):
    if settings and "lm_head" in target:
        pytest.skip("a module is either adapted or trained")
    section = TunerSection(
        lora_dropout=0.0, init_weights="false", target_modules=target, **settings
    )
    torch.manual_seed(0)
    model = prepare_model(build(architecture, tie_word_embeddings=False), section)
    plain = copy.deepcopy(model).get_base_model().eval()
    model = model.get_base_model().eval()
    head = examine_head(model)
    plainly = architecture == "Llama" and not settings and "lm_head" not in target
    assert head.kind == ("product" if plainly else "replayed")
    assert bool(head.trained) == bool(settings or "lm_head" in target)
    assert_same_loss(model, plain, weighted_batch(), head)


@pytest.mark.parametrize("architecture", ["Llama", "Gemma2"])
def test_logits_are_made_a_chunk_at_a_time(architecture, monkeypatch):
    model = build(architecture)
    head = examine_head(model)
    sizes = []
    original = heads.replay
    monkeypatch.setattr(
        loss, "replay", lambda causal, hidden: sizes.append(len(hidden)) or original(causal, hidden)
    )
    model.get_output_embeddings().register_forward_hook(lambda _m, x, _y: sizes.append(x[0].shape))
    batch = weighted_batch()
    label_loss(model, batch["input_ids"], batch["labels"], head=head)
    num_labels = int((batch["labels"][:, 1:] != -100).sum())
    counted = [size for size in sizes if isinstance(size, int)]
    assert sum(counted) == (0 if architecture == "Llama" else num_labels)
    assert all(size <= 10 for size in counted)
    # The forward that only makes hidden states makes logits of nothing.
    assert sizes[0][:2] == (5, 0)


def test_a_head_that_mixes_tokens_is_found_and_gets_all_of_them():
    model = build("Llama")
    kind = type(model)

    class Mixing(kind):
        def forward(self, *args, **kwargs):
            output = kind.forward(self, *args, **kwargs)
            output.logits = output.logits.cumsum(1)
            return output

    model.__class__ = Mixing
    head = examine_head(model)
    assert head.kind == "whole"
    assert "logits of all tokens at once: chunks of tokens give other" in head.describe()
    assert_same_loss(model, copy.deepcopy(model), weighted_batch(), head)


def test_chunks_can_be_switched_off():
    model = build("Llama")
    plain = copy.deepcopy(model)
    head = install_label_loss(model, chunks=False)
    assert head.describe() == "logits of all tokens at once: train.label_logits is off"
    batch = batch_of(counting_rows(3))
    found = model(input_ids=batch["input_ids"], labels=batch["labels"])["loss"]
    assert found.item() == pytest.approx(plain_loss(plain, batch).item(), rel=1e-5)


def test_validation_and_autocast_go_through_the_models_own_head():
    model = build("Gemma2")
    batch = weighted_batch()
    head = examine_head(model)
    fields = [batch.get(name) for name in ("input_ids", "labels", "loss_weights")]
    exact = plain_loss(model, batch).item()
    with torch.no_grad():
        assert label_loss(model, *fields, head=head).item() == pytest.approx(exact, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = label_loss(model, *fields, head=head)
    rough.backward()
    assert rough.item() == pytest.approx(exact, rel=2e-2)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_label_of_vanishing_probability_has_an_exact_loss():
    model = build("Llama", tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(1000)
    batch = batch_of(counting_rows(3))
    found = label_loss(model, batch["input_ids"], batch["labels"])
    expected = plain_loss(model, batch)
    assert expected.item() > 1000 * 30
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
