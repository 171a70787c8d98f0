"""What is trained: counts, targets and the order of the freeze rules."""

import pytest
import torch
from training_setup import tiny_base

from swiftcore.errors import UsageError
from swiftcore.models import load_model
from swiftcore.recipe import TunerSection
from swiftcore.tuners import count_parameters, prepare_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("tuners") / "base", tie_word_embeddings=False)


@pytest.fixture
def model(base):
    return load_model(base)


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def linear_shapes(model):
    return {
        name: module.weight.shape
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def test_all_linear_adapts_every_linear_but_the_head(model):
    shapes = linear_shapes(model)
    expected = sum(4 * sum(shape) for name, shape in shapes.items() if name != "lm_head")
    prepared = prepare_model(model, TunerSection(lora_rank=4))
    assert count_parameters(prepared).trainable == expected
    assert all("lora_" in name for name in trainable(prepared))
    assert not any("lm_head" in name for name in trainable(prepared))


def test_counts_are_the_same_on_the_meta_device(base):
    from transformers import AutoConfig, AutoModelForCausalLM

    section = TunerSection(lora_rank=4, use_dora=True)
    real = count_parameters(prepare_model(load_model(base), section))
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
        found = count_parameters(prepare_model(empty, section))
    assert found == real


def test_target_regex_replaces_target_modules(model):
    prepared = prepare_model(model, TunerSection(target_regex=r"model\.layers\.1\..*q_proj"))
    assert len(trainable(prepared)) == 2
    assert all("layers.1.self_attn.q_proj" in name for name in trainable(prepared))


def test_modules_to_save_are_trained_whole(model):
    section = TunerSection(target_modules=["q_proj"], modules_to_save=["lm_head"])
    prepared = prepare_model(model, section)
    assert any("lm_head.modules_to_save" in name for name in trainable(prepared))


def test_rslora_scales_by_the_root_of_the_rank(model):
    prepared = prepare_model(model, TunerSection(use_rslora=True, lora_rank=16, lora_alpha=32))
    assert prepared.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 32 / 4


def test_fresh_lora_changes_nothing_unless_told_so(base):
    ids = torch.arange(20, 30)[None]
    with torch.no_grad():
        plain = load_model(base)(ids).logits
        fresh = prepare_model(load_model(base), TunerSection()).eval()(ids).logits
        random = prepare_model(load_model(base), TunerSection(init_weights="false"))
        assert torch.equal(plain, fresh)
        assert not torch.equal(plain, random.eval()(ids).logits)


def test_lora_weights_are_float32_on_a_bfloat16_base(base):
    section = TunerSection(modules_to_save=["norm"], target_modules=["q_proj"])
    prepared = prepare_model(load_model(base, dtype="bfloat16"), section)
    kinds = {p.dtype for p in prepared.parameters() if p.requires_grad}
    assert kinds == {torch.float32}


def test_full_trains_everything(model):
    count = count_parameters(prepare_model(model, TunerSection(train_type="full")))
    assert count.trainable == count.total


def test_freeze_rules_apply_in_their_documented_order(model):
    section = TunerSection(
        train_type="full",
        freeze_parameters_ratio=1.0,
        trainable_parameters=["model.layers.1"],
        trainable_parameters_regex=r"layers\.0\..*norm",
    )
    names = trainable(prepare_model(model, section))
    assert names
    assert all(n.startswith("model.layers.1") or ("layers.0" in n and "norm" in n) for n in names)


def test_freeze_ratio_takes_whole_tensors_from_the_first(model):
    sizes = [(name, p.numel()) for name, p in model.named_parameters()]
    total = sum(size for _, size in sizes)
    ratio = (sizes[0][1] + sizes[1][1] + 1) / total
    section = TunerSection(train_type="full", freeze_parameters_ratio=ratio)
    frozen = {name for name, _ in sizes} - trainable(prepare_model(model, section))
    assert frozen == {sizes[0][0], sizes[1][0]}


def test_freeze_prefix_and_regex(model):
    section = TunerSection(
        train_type="full",
        freeze_parameters=["model.embed_tokens", "lm_head"],
        freeze_parameters_regex=r"mlp\.(up|down)_proj",
    )
    names = trainable(prepare_model(model, section))
    assert not any(n.startswith(("model.embed_tokens", "lm_head")) for n in names)
    assert not any("up_proj" in n or "down_proj" in n for n in names)
    assert any("gate_proj" in n for n in names)


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ({"target_modules": ["q_porj"]}, "q_porj"),
        ({"target_regex": "nothing"}, "nothing"),
        ({"target_regex": "("}, "("),
        ({"modules_to_save": ["head"]}, "head"),
        ({"freeze_parameters": ["model"]}, "freeze_parameters"),
        ({"train_type": "full", "use_dora": True}, "use_dora"),
        ({"train_type": "full", "freeze_parameters": ["layers"]}, "layers"),
        ({"train_type": "full", "trainable_parameters_regex": "nope"}, "nope"),
    ],
)
def test_settings_without_effect_are_refused(model, section, found):
    with pytest.raises(UsageError) as caught:
        prepare_model(model, TunerSection(**section))
    assert found in caught.value.found


def test_nothing_left_to_train_is_refused(model):
    with pytest.raises(UsageError, match="nothing is left"):
        prepare_model(model, TunerSection(train_type="full", freeze_parameters_ratio=1.0))
