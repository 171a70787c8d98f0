"""LoRA in one product against peft's three: logits, loss, every adapter's gradient, saving."""

import copy
import json

import pytest
import torch
from test_training_side_by_side import (
    EXPERTS,
    build,
    one_by_one,
    packed_loss,
    some_rows,
)
from training_setup import (
    counting_rows,
    folder_bytes,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.recipe import TunerSection
from swiftcore.training import worker
from swiftcore.training.batches import Collator
from swiftcore.training.loss import label_loss
from swiftcore.training.peak import emulation_note
from swiftcore.training.row_attention import attend_by_row
from swiftcore.tuners import fold_lora, folded, prepare_model

MODELS = {
    "Llama": {},
    "Qwen2": {},
    "Qwen3": {},
    "Mistral": {},
    "Gemma": {},
    "Phi3": {},
    "Mixtral": {"num_local_experts": 4},
    "Qwen3Moe": EXPERTS,
}


def adapted(architecture="Qwen3", **settings):
    options = MODELS.get(architecture, {})
    model = build(architecture, **options)
    torch.manual_seed(1)
    tuner = TunerSection(**{"lora_dropout": 0.0, "init_weights": "false", **settings})
    return prepare_model(model, tuner).eval()


def pair(architecture="Qwen3", **settings):
    plain = adapted(architecture, **settings)
    model = copy.deepcopy(plain)
    return plain, model, fold_lora(model)


def assert_same_gradients(ours, theirs):
    """Compare sizes of differences: rows one by one alone differ by 1e-5 from rows together."""
    compared = 0
    for (name, found), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None), name
        if expected.grad is not None and expected.grad.norm() > 0:
            off = (found.grad - expected.grad).norm() / expected.grad.norm()
            assert off < 2e-4, (name, off)
            compared += 1
    assert compared


def assert_same_logits_loss_and_gradients(model, plain):
    """Compare a folded model on rows side by side with peft's on one row after another."""
    rows = some_rows()
    expected_logits, expected = one_by_one(plain, rows)
    attend_by_row(model)
    loss = packed_loss(model.get_base_model(), rows)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    assert_same_gradients(model, plain)
    with torch.no_grad():
        for row, logits in zip(rows, expected_logits, strict=True):
            found = model(input_ids=torch.tensor([row["input_ids"]])).logits
            torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=["folded weight", "added part"])
def form(request, monkeypatch):
    """Take one of the two forms whatever the sizes."""
    monkeypatch.setattr(folded, "_pays", lambda x, weight: request.param == "folded weight")


@pytest.mark.parametrize("architecture", MODELS)
def test_logits_loss_and_gradients_equal_those_of_peft(architecture, form):
    plain, model, folding = pair(architecture, use_rslora=architecture == "Llama")
    assert folding.folded
    assert not folding.left
    assert_same_logits_loss_and_gradients(model, plain)


@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Gemma", "Qwen3Moe"])
def test_dora_has_the_logits_loss_and_gradients_that_peft_gives(architecture):
    """Magnitudes moved away from their start, at which the factor of every output is 1."""
    plain = adapted(architecture, use_dora=True)
    for name, parameter in plain.named_parameters():
        if "magnitude" in name:
            generator = torch.Generator().manual_seed(len(name))
            parameter.data *= torch.rand(parameter.shape, generator=generator) + 0.5
            parameter.data[0] = 0.0  # a factor of 0 has a gradient too
    model = copy.deepcopy(plain)
    folding = fold_lora(model)
    assert not folding.left
    assert folding.describe().startswith("DoRA folded into one product in ")
    assert_same_logits_loss_and_gradients(model, plain)
    assert all(p.grad.any() for n, p in model.named_parameters() if "magnitude" in n)


def test_a_dora_layer_equals_the_formula_of_the_paper_to_1e_5():
    """y = x (m / |W + s B A|) (W + s B A)^T + b by autograd, with the norm held fixed."""
    _, model, _ = pair("Qwen2", use_dora=True, use_rslora=True)
    layer = next(m for n, m in model.named_modules() if n.endswith("q_proj"))
    magnitude = layer.lora_magnitude_vector["default"].weight
    magnitude.data *= torch.linspace(0.5, 1.5, len(magnitude))
    x = torch.randn(3, 40, 32, requires_grad=True)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    weights = (x, down, up, magnitude)
    toward = torch.randn(3, 40, 32)
    turned = layer.base_layer.weight + layer.scaling["default"] * up @ down
    ratio = magnitude / turned.detach().norm(dim=1)
    expected = x @ (ratio[:, None] * turned).T + layer.base_layer.bias
    exact = torch.autograd.grad(expected, weights, toward)
    found = layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(found, weights, toward), exact, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        # In 16 bits the norm is peft's business.
        torch.testing.assert_close(layer(x), type(layer).forward(layer, x))


@pytest.mark.parametrize("use_dora", [False, True])
def test_gradient_checkpointing_padding_and_accumulation_give_the_same(use_dora):
    plain, model, _ = pair(use_dora=use_dora)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    rows = some_rows()
    for part in (rows[:2], rows[2:]):
        batch = Collator(0)(part)
        fields = (batch[name] for name in ("input_ids", "labels", "loss_weights"))
        label_loss(model.get_base_model(), *fields).backward()
    one_by_one(plain, rows)[1].backward()
    assert_same_gradients(model, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_is_as_near_to_the_exact_gradient_as_peft_is(dtype):
    """Base in either type, adapters in float32, products in bfloat16."""
    plain, model, _ = pair()
    exact = copy.deepcopy(plain)
    for name, parameter in [*plain.named_parameters(), *model.named_parameters()]:
        if "lora_" not in name:
            parameter.data = parameter.data.to(dtype)
    ids = torch.tensor([some_rows()[1]["input_ids"]])
    losses, off = [], []
    exact(input_ids=ids, labels=ids).loss.backward()
    for candidate in (plain, model):
        with torch.autocast("cpu", torch.bfloat16):
            loss = candidate(input_ids=ids, labels=ids).loss
        loss.backward()
        losses.append(loss.item())
        pairs = zip(candidate.parameters(), exact.parameters(), strict=True)
        off.append(
            sum((p.grad - e.grad).norm() / e.grad.norm() for p, e in pairs if e.grad is not None)
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert off[1] < 1.5 * off[0]


@pytest.mark.parametrize(
    ("ability", "dtype", "said"),
    [("avx2", "bfloat16", True), ("avx512_bf16", "bfloat16", False), ("avx2", "float32", False)],
)
def test_a_processor_that_emulates_bfloat16_is_named(monkeypatch, ability, dtype, said):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {ability: True})
    notes = emulation_note("cpu", dtype)
    assert len(notes) == said
    assert all("emulates" in note for note in notes)


def test_in_16_bits_a_small_adapter_is_not_lost_in_the_rounding_of_the_weight():
    plain, model, _ = pair()
    for candidate in (plain, model):
        for name, parameter in candidate.named_parameters():
            if "lora_" not in name:
                parameter.data = parameter.data.bfloat16()
    layers = [
        next(m for n, m in candidate.named_modules() if n.endswith("q_proj"))
        for candidate in (plain, model)
    ]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for layer in layers:
            # 1 - 2^-9 and 1 + 2^-9 are both 1 in bfloat16.
            sign = torch.ones(32)
            sign[16:] = -1.0
            layer.base_layer.weight.fill_(1.0)
            rank = len(layer.lora_A["default"].weight)
            layer.lora_A["default"].weight.copy_(
                sign.expand(rank, 32) * 2.0**-9 / layer.scaling["default"] / rank
            )
            layer.lora_B["default"].weight.fill_(1.0)
        x = sign.expand(500, 32)
        found, expected = layers[1](x), layers[0](x)
    torch.testing.assert_close(found, expected)
    assert (found == 32 * 2.0**-9).all()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lora_dropout": 0.1}, "dropout"),
        ({"use_dora": True, "lora_dropout": 0.1}, "dropout"),
        ({"lora_bias": "all"}, "base weights that are trained"),
        ({"target_modules": ["embed_tokens"]}, "a Embedding below peft's Embedding"),
    ],
)
def test_what_can_not_be_folded_is_left_to_peft_and_named(settings, reason):
    # Qwen 2 has biases in three of its seven layers.
    plain, model, folding = pair("Qwen2", **settings)
    assert list(folding.left) == [reason]
    assert reason in folding.describe()
    assert bool(folding.folded) == ("lora_bias" in settings)
    rows = some_rows()
    packed = [one_by_one(candidate, rows)[1] for candidate in (plain, model)]
    assert packed[0].item() == pytest.approx(packed[1].item(), rel=1e-5)


def test_hooks_conv1d_layers_and_a_second_adapter_are_left_to_peft():
    model = adapted()
    layer = next(m for n, m in model.named_modules() if n.endswith("q_proj"))
    layer.base_layer.register_forward_hook(lambda *_: None)
    assert fold_lora(model).left == {
        "hooks": ("model.layers.0.self_attn.q_proj",),
    }
    model = prepare_model(build("GPT2"), TunerSection(target_modules=["c_attn"], lora_dropout=0.0))
    assert list(fold_lora(model).left) == ["a Conv1D below peft's Linear"]
    model = adapted()
    model.add_adapter("other", copy.deepcopy(model.peft_config["default"]))
    assert list(fold_lora(model).left) == ["several adapters"]


@pytest.mark.parametrize("use_dora", [False, True])
def test_disabling_merging_and_saving_are_those_of_peft(tmp_path, use_dora):
    plain, model, _ = pair(use_dora=use_dora)
    ids = torch.tensor([some_rows()[1]["input_ids"]])
    assert plain.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        for candidate, folder in ((plain, "plain"), (model, "folded")):
            candidate.save_pretrained(tmp_path / folder)
        with plain.disable_adapter(), model.disable_adapter():
            assert torch.equal(plain(input_ids=ids).logits, model(input_ids=ids).logits)
        model.merge_adapter()
        torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)
        model.unmerge_adapter()
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits, plain(input_ids=ids).logits)
    files, configs = [], []
    for folder in ("plain", "folded"):
        content = folder_bytes(tmp_path / folder)
        config = json.loads(content.pop("adapter_config.json"))
        # peft keeps these in a set, whose order may differ between two of the same names.
        configs.append(config | {"target_modules": sorted(config["target_modules"])})
        files.append(content)
    assert files[0] == files[1]
    assert configs[0] == configs[1]


def test_for_many_tokens_the_weight_is_folded_and_for_few_it_is_not():
    weight = torch.zeros(64, 64)
    assert folded._pays(torch.zeros(1, 33, 64), weight)
    assert not folded._pays(torch.zeros(1, 32, 64), weight)
    assert not folded._pays(torch.zeros(1, 33, 64, dtype=torch.bfloat16), weight.bfloat16())


def test_nothing_but_the_input_is_kept_for_the_backward():
    _, model, _ = pair()
    layer = next(m for n, m in model.named_modules() if n.endswith("q_proj"))
    x = torch.randn(40, 32, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    owned = {p.data_ptr() for p in layer.parameters()} | {x.data_ptr()}
    assert {tensor.data_ptr() for tensor in kept} <= owned


def test_a_run_says_so_and_can_do_without(tmp_path):
    base = tiny_base(tmp_path / "base")
    encoded = write_encoded(tmp_path / "encoded", counting_rows(8))
    exact = {"tuner": {"lora_dropout": 0.0}, "max_steps": 1}
    result = train_in_this_process(make_job(tmp_path / "on", base, encoded, **exact))
    assert "LoRA folded into one product in 14 layers" in result.notes
    said = "logits of label tokens alone, a chunk at a time, gradient in the forward"
    assert said in result.notes
    off = make_job(tmp_path / "off", base, encoded, **exact, fold_lora=False)
    assert worker._folded(adapted(), off) == []
