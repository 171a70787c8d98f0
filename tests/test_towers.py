"""Parts of multimodal models: found by structure, frozen, adapted, and trained at their rates."""

import pytest
import torch
import transformers
from training_setup import (
    counting_rows,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)
from transformers import LlamaConfig, LlamaForCausalLM

from swiftcore.errors import UsageError
from swiftcore.models import load_model, load_tokenizer
from swiftcore.models.towers import find_towers
from swiftcore.recipe import TunerSection
from swiftcore.training.optimizers.groups import Rates, parameter_groups
from swiftcore.training.trainer import SwiftTrainer
from swiftcore.tuners import load_adapter, merge_tuner, prepare_model

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 330,
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


@pytest.fixture(scope="module")
def sighted(tmp_path_factory):
    """Folder of a Qwen2.5-VL with random weights and a text tokenizer."""
    root = tmp_path_factory.mktemp("sighted")
    torch.manual_seed(0)
    build("Qwen2_5_VL", "cpu").save_pretrained(root / "model")
    load_tokenizer(tiny_base(root / "text")).save_pretrained(root / "model")
    return root / "model", write_encoded(root / "encoded", counting_rows(8))


BRIEF = {"max_steps": 4, "save_strategy": "no", "logging_steps": 1}


def test_a_multimodal_model_trains_on_text_with_its_encoder_frozen(sighted, tmp_path):
    job = make_job(tmp_path, *sighted, tuner={"train_type": "full"}, **BRIEF)
    result = train_in_this_process(job)
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    before = dict(load_model(sighted[0]).named_parameters())
    trained = load_model(job.out_dir)
    towers = find_towers(trained)
    moved = {n for n, p in trained.named_parameters() if not torch.equal(p, before[n])}
    assert {towers.part(name) for name in moved} == {"llm"}
    assert trained.config.get_text_config().use_cache


def test_lora_on_a_multimodal_model_merges(sighted, tmp_path):
    job = make_job(tmp_path, *sighted, tuner={"lora_dropout": 0.0}, **BRIEF)
    result = train_in_this_process(job)
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    adapted = load_adapter(sighted[0], job.out_dir)
    ids = torch.tensor([counting_rows(1)[0]["input_ids"]])
    with torch.no_grad():
        expected, plain = adapted(ids).logits, load_model(sighted[0])(ids).logits
        assert (expected - plain).abs().max() > 1e-2
        merge_tuner(adapted).save_pretrained(tmp_path / "merged")
        merged = load_model(tmp_path / "merged")(ids).logits
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)


def test_rates_of_parts_reach_the_optimizer_of_a_training(sighted, tmp_path):
    tuner = {"train_type": "full", "freeze_vit": False}
    job = make_job(tmp_path, *sighted, tuner=tuner, vit_lr=1e-5, **BRIEF)
    groups = []
    real = SwiftTrainer.create_optimizer

    def noted(self, model=None):
        optimizer = real(self, model)
        groups.extend(group["lr"] for group in optimizer.param_groups)
        return optimizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwiftTrainer, "create_optimizer", noted)
        train_in_this_process(job)
    assert sorted(set(groups)) == [1e-5, 1e-2]
