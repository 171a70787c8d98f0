"""Every tuner by its name: it trains, its folder comes back the same, and it merges or says no."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from torch import nn
from training_setup import (
    counting_rows,
    folder_bytes,
    learn,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import UsageError
from swiftcore.export import merge_adapter
from swiftcore.models import load_model, load_tokenizer
from swiftcore.models.facts import safetensors_header
from swiftcore.models.files import read_json
from swiftcore.recipe import MergeSection, TunerSection
from swiftcore.recipe.refusals import REFUSED_TUNERS
from swiftcore.recipe.sections import TrainType
from swiftcore.template import get_template, write_template_settings
from swiftcore.tuners import (
    count_parameters,
    load_adapter,
    merge_tuner,
    prepare_model,
    save_adapter,
)
from swiftcore.tuners.adalora import RankBudget
from swiftcore.tuners.kinds import KINDS

SAMPLES = [row["input_ids"] for row in counting_rows(3)]
IDS = torch.tensor([list(range(20, 40)), list(range(30, 50))])
# Settings that fit matrices of 32 by 64.
SMALL = {
    "vblora": {"peft_args": {"vector_length": 16}},
    "oft": {"peft_args": {"oft_block_size": 8}},
    "c3a": {"peft_args": {"block_size": 8}},
    "road": {"peft_args": {"group_size": 8}},
    "waveft": {"peft_args": {"n_frequency": 100}},
    "fourierft": {"fourier_n_frequency": 100},
    "llamapro": {"llamapro_num_new_blocks": 2},
    "adapter": {"adapter_length": 8},
    "adamss": {"peft_args": {"r": 8, "num_subspaces": 2}},
    "pvera": {"peft_args": {"r": 16}},
    "supertuning": {"peft_args": {"sparsity": 0.9}},
    "unilora": {"peft_args": {"init_theta_d_bound": 1.0}},
    "trainable_tokens": {"peft_args": {"token_indices": [25, 31]}},
}
VARIANTS = [
    *({"train_type": name, **SMALL.get(name, {})} for name in KINDS if name != "full"),
    {"use_dora": True},
    {"use_rslora": True, "init_weights": "pissa"},
    {"init_weights": "pissa_niter_4"},
    {"init_weights": "olora"},
    {"init_weights": "orthogonal"},
    {"init_weights": "lora-ga", "lora_rank": 4},
    {"init_weights": "eva", "lora_rank": 4},
    {"train_type": "bone", "init_weights": "bat"},
    {"train_type": "adapter", "modules_to_save": ["norm"]},
    {"train_type": "llamapro", "llamapro_num_new_blocks": 4, "llamapro_num_groups": 2},
    {"train_type": "vera", "vera_projection_prng_key": False},
    {"train_type": "boft", "boft_block_num": 2},
    {"target_modules": ["all-linear", "all-embedding"]},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("kinds") / "base", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("kinds") / "tied", tie_word_embeddings=True)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_the_table_names_what_a_recipe_accepts():
    assert set(KINDS) == set(get_args(TrainType))
    page = (Path(__file__).parents[1] / "docs/tuners.md").read_text()
    for kind in KINDS.values():
        assert set(kind.settings) <= set(TunerSection.model_fields)
        merges = {"model": "is whole"}.get(kind.home, "yes" if kind.merges else "no")
        assert f"| `{kind.name}` | {kind.trains} | {merges} |" in page


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: "-".join(str(v) for v in s.values()))
def test_a_tuner_trains_saves_reloads_and_merges(base, tied, tmp_path, settings):
    # A weight that two modules share is the harder case where both get an update.
    base = tied if "all-embedding" in settings.get("target_modules", []) else base
    section = TunerSection(**settings)
    before = logits(load_model(base))
    torch.manual_seed(0)
    model = prepare_model(load_model(base), section, total_steps=50, rows=counting_rows(8))
    losses = learn(model, IDS)
    assert losses[-1] < losses[0]
    trained = logits(model)
    assert (trained - before).abs().max() > 1e-2
    save_adapter(model, tmp_path / "adapter")
    reloaded = logits(load_adapter(base, tmp_path / "adapter"))
    torch.testing.assert_close(reloaded, trained, rtol=0, atol=1e-5)
    write_template_settings(
        tmp_path / "adapter", get_template("qwen2_5", load_tokenizer(base)).settings
    )
    arguments = (base, tmp_path / "adapter", tmp_path / "merged", MergeSection())
    if not KINDS[section.train_type].merges:
        with pytest.raises(UsageError, match=f"{section.train_type} can't be folded"):
            merge_adapter(*arguments, sample_ids=SAMPLES)
        return
    report = merge_adapter(*arguments, sample_ids=SAMPLES)
    assert report.max_logit_difference < 1e-5
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), trained, rtol=0, atol=1e-5)


class _Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn = nn.Linear(4096, 12288)
        self.c_proj = nn.Linear(4096, 4096, bias=False)


class _FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Linear(4096, 11008, bias=False)
        self.w2 = nn.Linear(4096, 11008, bias=False)
        self.c_proj = nn.Linear(11008, 4096, bias=False)


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.RMSNorm(4096), nn.RMSNorm(4096)
        self.attn, self.mlp = _Attention(), _FeedForward()


class _Qwen7B(nn.Module):
    """The shape of Qwen-7B's linear layers; nothing is computed."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(
            model_type="qwen", num_hidden_layers=32, hidden_size=4096, tie_word_embeddings=False
        )
        self.wte = nn.Embedding(151936, 4096)
        self.h = nn.ModuleList([_Block() for _ in range(32)])
        self.ln_f = nn.RMSNorm(4096)
        self.lm_head = nn.Linear(4096, 151936, bias=False)

    def prepare_inputs_for_generation(self):
        """Peft asks for it."""


@pytest.mark.parametrize(
    ("settings", "millions"),
    [
        ({"train_type": "lora", "lora_rank": 8}, 17.8913),
        ({"train_type": "lora", "use_dora": True}, 19.2512),
        ({"train_type": "adalora"}, 26.8389),
        ({"train_type": "llamapro", "llamapro_num_new_blocks": 4}, 809.5826),
        ({"train_type": "adapter"}, 33.6896),
    ],
    ids=["lora", "dora", "adalora", "llamapro", "adapter"],
)
def test_published_counts_for_qwen_7b(settings, millions):
    with torch.device("meta"):
        prepared = prepare_model(_Qwen7B(), TunerSection(**settings))
    assert round(count_parameters(prepared).trainable / 1e6, 4) == millions


def test_new_blocks_pass_on_what_they_get_and_the_old_ones_stay(base, tmp_path):
    section = TunerSection(train_type="llamapro", llamapro_num_new_blocks=2)
    model = prepare_model(load_model(base), section)
    assert torch.equal(logits(model), logits(load_model(base)))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {re.search(r"layers\.(\d+)", name).group(1) for name in names} == {"1", "3"}
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2, 3]
    with torch.no_grad():
        whole = model.generate(IDS[:1], max_new_tokens=5, do_sample=False)
        again = load_model(base).generate(IDS[:1], max_new_tokens=5, do_sample=False)
    assert torch.equal(whole, again)


def test_new_blocks_work_on_a_bfloat16_base(base):
    section = TunerSection(train_type="llamapro", llamapro_num_new_blocks=1)
    model = prepare_model(load_model(base, dtype="bfloat16"), section)
    assert torch.equal(logits(model), logits(load_model(base, dtype="bfloat16")))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    losses = learn(model, IDS)
    assert losses[-1] < losses[0]


def test_an_adapter_adds_what_its_bottleneck_makes_of_the_feed_forward_part(base):
    model = prepare_model(load_model(base), TunerSection(train_type="adapter", adapter_length=8))
    assert torch.equal(logits(model), logits(load_model(base)))
    assert count_parameters(model).trainable == 2 * (32 * 8 + 8 + 8 * 32 + 32)
    part = model.model.layers[0].mlp
    nn.init.normal_(part.adapter.up.weight)
    x = torch.randn(3, 32)
    plain = part.down_proj(nn.functional.silu(part.gate_proj(x)) * part.up_proj(x))
    inner = nn.functional.gelu(plain @ part.adapter.down.weight.T + part.adapter.down.bias)
    torch.testing.assert_close(part(x), plain + inner @ part.adapter.up.weight.T)


def test_an_update_of_expert_parameters_folds_into_them(tmp_path):
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "moe")
    section = TunerSection(
        target_modules=["q_proj"],
        target_parameters=["experts.gate_up_proj", "experts.down_proj"],
        lora_dropout=0.0,
    )
    model = prepare_model(load_model(tmp_path / "moe"), section)
    # Each of 4 experts: 32 to 32 and 16 to 32; the query matrix: 32 to 32.
    assert count_parameters(model).trainable == 2 * 8 * (4 * (64 + 48) + 64)
    learn(model, IDS)
    trained = logits(model)
    save_adapter(model, tmp_path / "adapter")
    reloaded = load_adapter(tmp_path / "moe", tmp_path / "adapter")
    torch.testing.assert_close(logits(reloaded), trained, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(merge_tuner(reloaded)), trained, rtol=0, atol=1e-5)


def test_pissa_starts_with_the_largest_singular_vectors(base):
    section = TunerSection(init_weights="pissa", lora_rank=4, lora_alpha=8)
    weight = load_model(base).model.layers[0].mlp.up_proj.weight
    layer = prepare_model(load_model(base), section).base_model.model.model.layers[0].mlp.up_proj
    update = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    u, s, v = torch.linalg.svd(weight)
    torch.testing.assert_close(update, (u[:, :4] * s[:4]) @ v[:4], rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.base_layer.weight + update, weight, rtol=0, atol=1e-6)


def rank_steps(model, budget, optimizer, steps) -> None:
    for step in steps:
        loss = model.train()(IDS, labels=IDS)["logits"].logsumexp(-1).mean() + budget.penalty()
        loss.backward()
        optimizer.step()
        budget.after_step(step)
        optimizer.zero_grad()


@pytest.mark.parametrize("tfinal", [0, 4])
def test_adalora_cuts_to_its_target_and_goes_on_after_a_stop(base, tmp_path, tfinal):
    section = TunerSection(
        train_type="adalora", adalora_target_r=3, adalora_tfinal=tfinal, lora_dropout=0.0
    )

    def start():
        torch.manual_seed(1)
        model = prepare_model(load_model(base), section, total_steps=12)
        trained = [p for p in model.parameters() if p.requires_grad]
        return model, RankBudget.of(model), torch.optim.AdamW(trained, lr=1e-2)

    whole, budget, optimizer = start()
    penalty = budget.penalty().item()
    rank_steps(whole, budget, optimizer, range(12))
    kept = [int((p != 0).sum()) for n, p in whole.named_parameters() if ".lora_E." in n]
    assert len(kept) == 14
    if tfinal:
        assert sum(kept) == 3 * 14
    else:
        assert sum(kept) < 3.5 * 14
    assert penalty > 0
    stopped, budget, optimizer = start()
    rank_steps(stopped, budget, optimizer, range(10))
    budget.save(tmp_path)
    resumed, budget, fresh = start()
    resumed.load_state_dict(stopped.state_dict())
    fresh.load_state_dict(optimizer.state_dict())
    budget.load(tmp_path)
    rank_steps(resumed, budget, fresh, range(10, 12))
    for name, p in whole.named_parameters():
        assert torch.equal(p, resumed.get_parameter(name)), name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_type": "adalora", "adalora_target_r": 12}, "ranks"),
        ({"train_type": "adalora", "adalora_tinit": 999, "adalora_tfinal": 1}, "no step left"),
        ({"train_type": "llamapro", "llamapro_num_new_blocks": 3}, "divide evenly"),
        ({"train_type": "boft", "boft_block_size": 7}, "can't put boft"),
        ({"train_type": "vera", "lora_rank": 4}, "do nothing"),
        ({"train_type": "adapter", "target_modules": ["q_proj"]}, "do nothing"),
        ({"train_type": "hra", "peft_args": {"aply_GS": True}}, "no such setting"),
        ({"lora_rank": 65}, "larger than every matrix"),
        ({"init_weights": "pissa", "use_dora": True}, "DoRA's norms"),
        ({"init_weights": "lora-ga"}, "looks at training rows"),
        ({"target_parameters": ["experts.down_proj"], "lora_dropout": 0}, "no such parameter"),
        ({"target_parameters": ["mlp.up_proj.weight"]}, "can't have these"),
        ({"train_type": "trainable_tokens"}, "token_indices"),
    ],
)
def test_what_a_tuner_cannot_do_is_said_before_training(base, settings, words):
    with pytest.raises(UsageError) as caught:
        prepare_model(load_model(base), TunerSection(**settings))
    assert words in str(caught.value)


def test_every_type_of_peft_has_a_name_here_or_a_reason_to_be_refused():
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {kind.name for kind in KINDS.values() if kind.home == "peft"}
    assert known.isdisjoint(REFUSED_TUNERS)
    for kind in PeftType:
        assert kind in PEFT_TYPE_TO_CONFIG_MAPPING
        assert (kind.value.lower() in known) != (kind.value.lower() in REFUSED_TUNERS), kind


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_type": "prompt_tuning"}, "virtual tokens"),
        ({"train_type": "lora_llm"}, "modules_to_save"),
        ({"tuner_backend": "unsloth"}, "only on a GPU"),
        ({"lora_dtype": "float16"}, "overflow"),
    ],
)
def test_values_of_others_are_refused_with_their_reason(settings, words):
    with pytest.raises(ValueError, match=f"is refused: .*{words}"):
        TunerSection(**settings)


def test_lora_dtype_is_the_type_of_its_matrices_and_of_what_is_stored(base, tmp_path):
    section = TunerSection(lora_dtype="bfloat16", modules_to_save=["norm"])
    model = prepare_model(load_model(base, dtype="bfloat16"), section)
    kinds = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad}
    for name, kind in kinds.items():
        assert kind == (torch.bfloat16 if ".lora_" in name else torch.float32), name
    save_adapter(model, tmp_path)
    stored = safetensors_header(tmp_path / "adapter_model.safetensors")
    assert {entry["dtype"] for name, entry in stored.items() if ".lora_" in name} == {"BF16"}


@pytest.mark.parametrize("start", ["loftq", "pisa", "bat"])
def test_starts_that_do_not_work_are_refused_by_name(start):
    with pytest.raises(ValueError, match=f"init_weights '{start}'"):
        TunerSection(init_weights=start)


def test_a_tuner_of_ours_on_another_base_is_refused(base, tmp_path):
    model = prepare_model(load_model(base), TunerSection(train_type="adapter"))
    save_adapter(model, tmp_path / "adapter")
    other = tiny_base(tmp_path / "other", num_hidden_layers=3)
    with pytest.raises(UsageError, match="does not fit this base"):
        load_adapter(other, tmp_path / "adapter")


@pytest.mark.road
@pytest.mark.parametrize(
    "tuner",
    [
        {"train_type": "adalora", "adalora_target_r": 4, "adalora_tfinal": 6},
        {"train_type": "llamapro", "llamapro_num_new_blocks": 1},
    ],
    ids=["adalora", "llamapro"],
)
def test_a_stopped_run_ends_with_the_bytes_of_a_whole_one(tmp_path, tuner):
    rows = counting_rows(12)
    base = tiny_base(tmp_path / "base")
    encoded = write_encoded(tmp_path / "encoded", rows)
    whole, stopped = (
        make_job(tmp_path / name, base, encoded, tuner=tuner, save_steps=4, learning_rate=1e-3)
        for name in ("whole", "stopped")
    )
    metrics = train_in_this_process(whole).metrics
    assert metrics["last_loss"] < metrics["first_loss"]
    # What a kill after step 8 of 12 leaves.
    shutil.copytree(whole.work_dir, stopped.work_dir)
    shutil.rmtree(stopped.work_dir / "checkpoints/checkpoint-12")
    assert train_in_this_process(stopped).resumed_from == 8
    assert folder_bytes(stopped.out_dir) == folder_bytes(whole.out_dir)
    config = read_json(whole.out_dir / "adapter_config.json")
    assert config["base_model_name_or_path"] == "base"
    assert load_adapter(base, whole.out_dir) is not None
