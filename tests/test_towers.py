"""Parts of multimodal models: found by structure, frozen, adapted, and trained at their rates."""

import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from swiftcore.errors import UsageError
from swiftcore.models.towers import find_towers
from swiftcore.recipe import TunerSection
from swiftcore.training.optimizers.groups import Rates, parameter_groups
from swiftcore.tuners import prepare_model

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SIGHT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
QWEN_SIGHT = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 32,
    "num_heads": 4,
    "intermediate_size": 48,
}
LLAMA = {"model_type": "llama", **TEXT}
QWEN2 = {"model_type": "qwen2", **TEXT}
# Family: text configuration, encoder's field and configuration, modules of encoder and aligner.
FAMILIES = {
    "Llava": (
        LLAMA,
        "vision_config",
        {"model_type": "clip_vision_model", **SIGHT},
        ["model.vision_tower"],
        ["model.multi_modal_projector"],
    ),
    "LlavaNext": (
        LLAMA,
        "vision_config",
        {"model_type": "clip_vision_model", **SIGHT},
        ["model.vision_tower"],
        ["model.image_newline", "model.multi_modal_projector"],
    ),
    "Qwen2VL": (
        {**TEXT, "rope_parameters": ROPE},
        "vision_config",
        {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4},
        ["model.visual"],
        ["model.visual.merger"],
    ),
    "Qwen2_5_VL": (
        {**TEXT, "rope_parameters": ROPE},
        "vision_config",
        QWEN_SIGHT,
        ["model.visual"],
        ["model.visual.merger"],
    ),
    "Qwen3VL": (
        TEXT,
        "vision_config",
        {**QWEN_SIGHT, "deepstack_visual_indexes": [0]},
        ["model.visual"],
        ["model.visual.deepstack_merger_list", "model.visual.merger"],
    ),
    "Gemma3": (
        TEXT,
        "vision_config",
        SIGHT,
        ["model.vision_tower"],
        ["model.multi_modal_projector"],
    ),
    "InternVL": (
        QWEN2,
        "vision_config",
        {**SIGHT, "image_size": [28, 28], "patch_size": [14, 14]},
        ["model.vision_tower"],
        ["model.multi_modal_projector"],
    ),
    "Idefics3": (LLAMA, "vision_config", SIGHT, ["model.vision_model"], ["model.connector"]),
    "Qwen2Audio": (
        QWEN2,
        "audio_config",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
        },
        ["model.audio_tower"],
        ["model.multi_modal_projector"],
    ),
}


def build(family: str, device: str = "meta"):
    text, field, encoder, _, _ = FAMILIES[family]
    config = getattr(transformers, f"{family}Config")(text_config=text, **{field: encoder})
    with torch.device(device):
        return getattr(transformers, f"{family}ForConditionalGeneration")(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_family_are_found_by_structure(family):
    model = build(family)
    towers = find_towers(model)
    assert towers is not None
    assert list(towers.vit) == FAMILIES[family][3]
    assert sorted(towers.aligner) == FAMILIES[family][4]
    decoder = model.get_decoder()
    of_llm = {id(p) for p in decoder.parameters()} | {
        id(p) for p in model.get_output_embeddings().parameters()
    }
    for name, parameter in model.named_parameters():
        assert (towers.part(name) == "llm") == (id(parameter) in of_llm), name


def trained_parts(model) -> set[str]:
    towers = find_towers(model)
    return {towers.part(name) for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ({}, {"llm"}),
        ({"freeze_vit": False}, {"llm", "vit"}),
        ({"freeze_aligner": False}, {"llm", "aligner"}),
        ({"freeze_llm": True, "freeze_vit": False}, {"vit"}),
        ({"freeze_llm": True, "trainable_parameters": ["lm_head"]}, {"llm"}),
    ],
)
@pytest.mark.parametrize("family", ["Qwen2_5_VL", "Llava"])
def test_full_training_freezes_parts(family, flags, trained):
    model = build(family)
    assert trained_parts(prepare_model(model, TunerSection(train_type="full", **flags))) == trained


def adapted_names(model) -> set[str]:
    return {
        name.removeprefix("base_model.model.").partition(".lora_A")[0]
        for name, _ in model.named_parameters()
        if ".lora_A." in name
    }


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ({}, {"llm"}),
        ({"freeze_vit": False, "freeze_aligner": False}, {"llm", "vit", "aligner"}),
        ({"freeze_llm": True, "freeze_aligner": False}, {"aligner"}),
    ],
)
def test_all_linear_are_the_linear_modules_of_the_parts_that_are_trained(flags, trained):
    model = build("Qwen2_5_VL")
    towers = find_towers(model)
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    expected = {name for name in linear if towers.part(name) in trained}
    adapted = prepare_model(model, TunerSection(**flags))
    assert adapted_names(adapted) == expected
    assert len(expected) > 0


@pytest.mark.parametrize("train_type", ["full", "lora"])
@pytest.mark.parametrize("flag", [{"freeze_llm": True}, {"freeze_vit": False}])
def test_a_text_model_has_no_parts_to_freeze(train_type, flag):
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**TEXT))
    with pytest.raises(UsageError, match="only a multimodal model"):
        prepare_model(model, TunerSection(train_type=train_type, **flag))
    assert find_towers(model) is None


@pytest.mark.parametrize("train_type", ["full", "lora"])
def test_parts_are_trained_at_their_own_rates(train_type):
    model = build("Qwen2_5_VL")
    towers = find_towers(model)
    part_of = {id(p): towers.part(name) for name, p in model.named_parameters()}
    section = TunerSection(train_type=train_type, freeze_vit=False, freeze_aligner=False)
    prepared = prepare_model(model, section)
    rates = Rates(1e-4, towers={"vit": 1e-5, "aligner": 3e-5})
    groups = parameter_groups(prepared, rates, weight_decay=0.0, decayed=())
    found = {group["lr"]: group["params"] for group in groups}
    assert list(found) == [1e-4, 1e-5, 3e-5]
    if train_type == "full":
        for rate, part in ((1e-4, "llm"), (1e-5, "vit"), (3e-5, "aligner")):
            assert {part_of[id(p)] for p in found[rate]} == {part}
    total = sum(p.numel() for p in prepared.parameters() if p.requires_grad)
    assert sum(p.numel() for params in found.values() for p in params) == total


def test_a_rate_for_what_is_not_trained_is_refused():
    model = prepare_model(build("Llava"), TunerSection(train_type="full"))
    with pytest.raises(UsageError, match="not trained") as caught:
        parameter_groups(model, Rates(1e-4, towers={"vit": 1e-5}), weight_decay=0.0, decayed=())
    assert "freeze_vit" in caught.value.do
    with torch.device("meta"):
        text = LlamaForCausalLM(LlamaConfig(**TEXT))
    with pytest.raises(UsageError, match="multimodal"):
        parameter_groups(text, Rates(1e-4, towers={"vit": 1e-5}), weight_decay=0.0, decayed=())
