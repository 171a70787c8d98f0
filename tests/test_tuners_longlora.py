"""LongLoRA: attention as the paper defines it, without a look ahead; embeddings and norms train."""

import math

import pytest
import torch
from training_setup import counting_rows, learn, tiny_base

from swiftcore.errors import UsageError
from swiftcore.export import merge_adapter
from swiftcore.models import load_model, load_tokenizer
from swiftcore.models.shape import model_shape
from swiftcore.recipe import MergeSection, TunerSection
from swiftcore.template import get_template, write_template_settings
from swiftcore.training.trained_size import trained_size
from swiftcore.tuners import count_parameters, load_adapter, prepare_model, save_adapter
from swiftcore.tuners.shifted_attention import DeferredMask, shifted_attention

SECTION = TunerSection(train_type="longlora", lora_dropout=0.0)
IDS = torch.tensor([list(range(20, 41)), list(range(30, 51))])


def causal(queries, keys):
    return keys <= queries


def by_definition(query, key, value, size: int) -> torch.Tensor:
    """Each head and token by itself: which keys are in its group and not later, then softmax."""
    num_heads, num_tokens, width = query.shape
    output = torch.zeros(num_tokens, num_heads, width)
    for head in range(num_heads):
        shift = size // 2 if head >= num_heads // 2 else 0
        for token in range(num_tokens):
            group = (token - shift) // size
            keys = [k for k in range(token + 1) if (k - shift) // size == group]
            scores = key[head, keys] @ query[head, token] / math.sqrt(width)
            output[token, head] = scores.softmax(0) @ value[head, keys]
    return output


@pytest.mark.parametrize("num_tokens", [16, 21, 3])
def test_attention_is_that_of_the_paper_and_no_token_sees_a_later_one(num_tokens):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 4, num_tokens, 8) for _ in range(3))
    mask = DeferredMask(lambda: None, causal, num_tokens, None)
    found = shifted_attention(query, key, value, mask)[0]
    assert mask.group_size == {16: 4, 21: 6, 3: 2}[num_tokens]
    expected = by_definition(query[0], key[0], value[0], mask.group_size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_padding_is_not_seen_and_shared_keys_serve_their_heads():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 16, 8), torch.randn(2, 1, 16, 8), torch.randn(2, 1, 16, 8)
    real = torch.ones(2, 16, dtype=torch.bool)
    real[1, 13:] = False
    found = shifted_attention(query, key, value, DeferredMask(lambda: None, causal, 16, real))
    assert found.isfinite().all()
    for row in range(2):
        shared = [part[row].expand(4, -1, -1) for part in (key, value)]
        expected = by_definition(query[row], *shared, size=4)
        torch.testing.assert_close(found[row][real[row]], expected[real[row]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("tied", "attention"), [(False, "sdpa"), (True, "eager")])
def test_longlora_trains_in_groups_answers_in_full_and_merges(tmp_path, tied, attention):
    base = tiny_base(tmp_path / "base", tie_word_embeddings=tied)
    torch.manual_seed(0)
    plain = load_model(base, attn_impl=attention)
    embedding = plain.get_input_embeddings().weight.numel()
    norms = sum(p.numel() for name, p in plain.named_parameters() if "norm" in name)
    lora = count_parameters(prepare_model(load_model(base), TunerSection())).trainable
    model = prepare_model(load_model(base, attn_impl=attention), SECTION)
    assert count_parameters(model).trainable == lora + embedding + norms
    assert trained_size(model_shape(base), SECTION).entries == lora + embedding + norms
    with torch.no_grad():
        assert torch.equal(model.eval()(IDS).logits, plain(IDS).logits)
        assert not torch.allclose(model.train()(IDS).logits, plain(IDS).logits)
    losses = learn(model, IDS, steps=6)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        trained = model.eval()(IDS).logits
    save_adapter(model, tmp_path / "adapter")
    with torch.no_grad():
        reloaded = load_adapter(base, tmp_path / "adapter")(IDS).logits
    torch.testing.assert_close(reloaded, trained, rtol=0, atol=1e-5)
    settings = get_template("qwen2_5", load_tokenizer(base)).settings
    write_template_settings(tmp_path / "adapter", settings)
    samples = [row["input_ids"] for row in counting_rows(2)]
    arguments = (base, tmp_path / "adapter", tmp_path / "merged", MergeSection())
    assert merge_adapter(*arguments, sample_ids=samples).max_logit_difference < 1e-5


def test_in_training_a_token_depends_on_its_groups_alone(tmp_path):
    """One block: 16 tokens in groups of 4, shifted by 2, so token 9 sees 8 and 9, and 6 to 9."""
    base = tiny_base(tmp_path / "base", num_hidden_layers=1, tie_word_embeddings=False)
    model = prepare_model(load_model(base), SECTION).train()
    embedded = []

    def keep(_module, _inputs, output):
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    model.get_input_embeddings().register_forward_hook(keep)
    logits = model(torch.arange(20, 36)[None]).logits[0, 9].logsumexp(-1)
    (gradient,) = torch.autograd.grad(logits, embedded[0])
    assert gradient[0].abs().sum(-1).nonzero()[:, 0].tolist() == [6, 7, 8, 9]


def test_attention_that_cannot_be_exchanged_is_refused():
    from transformers import BloomConfig, BloomForCausalLM

    bloom = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(UsageError, match="does not go with this model"):
        prepare_model(
            bloom, TunerSection(train_type="longlora", target_modules=["query_key_value"])
        )


def test_settings_of_other_starts_are_refused(tmp_path):
    with pytest.raises(UsageError, match="do nothing with train_type longlora"):
        prepare_model(
            load_model(tiny_base(tmp_path / "base")),
            TunerSection(train_type="longlora", init_weights="pissa"),
        )
