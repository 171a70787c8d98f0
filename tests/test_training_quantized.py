"""QLoRA: adapters over frozen weights of 4 and 8 bits, and where they go afterwards."""

import pytest
import torch
from training_setup import (
    counting_rows,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import UsageError
from swiftcore.export import merge_adapter
from swiftcore.models import load_model, load_tokenizer
from swiftcore.models.loading import is_quantized
from swiftcore.models.quantizing import LoadQuantization
from swiftcore.recipe import MergeSection, ModelSection, TunerSection
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.recipe.sections import Recipe
from swiftcore.template import get_template, write_template_settings
from swiftcore.training.estimate import estimate_memory
from swiftcore.tuners import load_adapter, prepare_model

IDS = torch.tensor([list(range(20, 40)), list(range(30, 50))])
SAMPLES = [row["input_ids"] for row in counting_rows(3)]
# The sixteen values of NF4, appendix E of the QLoRA paper.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized") / "base"
    return tiny_base(folder, hidden_size=64, intermediate_size=128, tie_word_embeddings=False)


def held(model) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    weight = model.model.layers[0].mlp.up_proj.weight
    return dequantize_4bit(weight.data, weight.quant_state)


def test_a_weight_is_the_nearest_of_the_sixteen_in_its_block_of_64(base):
    quantization = LoadQuantization(bits=4, double_quant=False)
    found = held(load_model(base, quantization=quantization)).reshape(-1, 64)
    weight = load_model(base).model.layers[0].mlp.up_proj.weight.detach().reshape(-1, 64)
    scale = weight.abs().amax(dim=1, keepdim=True)
    code = torch.tensor(NF4)
    nearest = code[(weight / scale)[..., None].sub(code).abs().argmin(-1)] * scale
    torch.testing.assert_close(found, nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"bits": 8}, torch.int8),
        ({"bits": 4, "quant_type": "fp4"}, torch.uint8),
        ({"bits": 4, "storage": "float32"}, torch.float32),
    ],
)
def test_weights_are_held_as_asked_and_answers_stay_close(base, settings, kind):
    plain = load_model(base)
    model = load_model(base, quantization=LoadQuantization(**settings))
    layer = model.model.layers[0].mlp.up_proj
    assert layer.weight.dtype == kind
    assert model.lm_head.weight.dtype == torch.float32
    if settings["bits"] == 4:
        assert layer.weight.quant_state.quant_type == settings.get("quant_type", "nf4")
        assert layer.weight.quant_state.nested
    with torch.no_grad():
        difference = (model(IDS).logits - plain(IDS).logits).norm() / plain(IDS).logits.norm()
    assert 0 < difference < 0.3


def test_the_compute_type_is_that_of_the_model_unless_named(base):
    quantization = LoadQuantization(bits=4)
    layers = [
        load_model(base, dtype="bfloat16", quantization=quantization),
        load_model(base, quantization=quantization.model_copy(update={"compute_dtype": "float16"})),
    ]
    found = [model.model.layers[0].mlp.up_proj.compute_dtype for model in layers]
    assert found == [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("tuner", [{}, {"use_dora": True}, {"train_type": "adalora"}])
def test_an_evaluation_between_two_steps_leaves_the_gradients_alone(base, tuner):
    """bitsandbytes repacks weights in an evaluation on a CPU, and gradients would end there."""
    loaded = load_model(base, quantization=LoadQuantization(bits=4))
    for layer in (module for module in loaded.modules() if type(module).__name__ == "Linear4bit"):
        # As on processors with AVX512-BF16, where it does so.
        layer.support_avx512bf16_for_cpu = True
    model = prepare_model(
        loaded,
        TunerSection(**{"lora_dropout": 0.0, "init_weights": "true", **tuner}),
        total_steps=50,
    )
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model.train()(IDS, labels=IDS).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
        with torch.no_grad():
            model.eval()(IDS)
    assert any(grad.abs().max() > 0 for grad in gradients[0])
    for before, after in zip(*gradients, strict=True):
        assert torch.equal(before, after)


def test_the_estimate_counts_packed_weights(base, tmp_path):
    job = make_job(tmp_path, base, tmp_path)
    plain, quantization = estimate_memory(job, 0), LoadQuantization(bits=4)
    job = job.model_copy(update={"quantization": quantization})
    weights = [p for n, p in load_model(base).named_parameters() if "proj" in n]
    entries = sum(p.numel() for p in weights)
    saved = plain.weights - estimate_memory(job, 0).weights
    assert saved == round(entries * (4 - 0.5 - 1 / 64))
    model = load_model(base, quantization=quantization)
    packed = [m.weight for m in model.modules() if type(m).__name__ == "Linear4bit"]
    assert sum(p.numel() for p in packed) == entries // 2


@pytest.mark.parametrize("bits", [4, 8])
def test_a_run_writes_a_plain_adapter_that_merges_into_the_plain_base(base, tmp_path, bits):
    encoded = write_encoded(tmp_path / "encoded", counting_rows(12), counting_rows(3, seed=1))
    job = make_job(tmp_path, base, encoded, max_steps=6, eval_steps=2, save_steps=6)
    job = job.model_copy(update={"quantization": LoadQuantization(bits=bits)})
    result = train_in_this_process(job)
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    assert result.metrics["eval_loss"] < result.metrics["first_loss"]
    name = "nf4" if bits == 4 else "int8"
    assert f"frozen weights are held as {name} by bitsandbytes" in result.notes
    settings = get_template("qwen2_5", load_tokenizer(base)).settings
    write_template_settings(job.out_dir, settings)
    adapted = load_adapter(base, job.out_dir)
    assert {p.dtype for p in adapted.parameters()} == {torch.float32}
    report = merge_adapter(
        base, job.out_dir, tmp_path / "merged", MergeSection(), sample_ids=SAMPLES
    )
    assert report.max_logit_difference < 1e-5
    assert not is_quantized(tmp_path / "merged")


def test_lora_trains_over_a_folder_that_is_quantized_and_does_not_merge_into_it(base, tmp_path):
    load_model(base, quantization=LoadQuantization(bits=4)).save_pretrained(tmp_path / "small")
    for file in base.glob("tokenizer*"):
        (tmp_path / "small" / file.name).write_bytes(file.read_bytes())
    encoded = write_encoded(tmp_path / "encoded", counting_rows(12))
    job = make_job(tmp_path, tmp_path / "small", encoded, max_steps=6)
    metrics = train_in_this_process(job).metrics
    assert metrics["last_loss"] < metrics["first_loss"]
    with pytest.raises(UsageError, match="can't be merged into a quantized base"):
        merge_adapter(
            tmp_path / "small", job.out_dir, tmp_path / "m", MergeSection(), sample_ids=SAMPLES
        )
    with pytest.raises(UsageError, match="quantized already"):
        load_model(tmp_path / "small", quantization=LoadQuantization(bits=4))


@pytest.mark.parametrize(
    ("bits", "tuner"),
    [
        (4, {"train_type": "full"}),
        (4, {"train_type": "boft"}),
        (4, {"train_type": "reft"}),
        (4, {"init_weights": "olora"}),
        (8, {"use_dora": True}),
    ],
)
def test_what_would_read_or_train_packed_weights_is_refused(base, bits, tuner):
    model = load_model(base, quantization=LoadQuantization(bits=bits))
    with pytest.raises(UsageError, match="does not go over quantized weights"):
        prepare_model(model, TunerSection(**tuner))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_bits": 4}, "go together"),
        ({"quant_method": "bnb"}, "go together"),
        ({"bnb_4bit_quant_type": "fp4"}, "do nothing"),
        (
            {"quant_method": "bnb", "quant_bits": 8, "bnb_4bit_use_double_quant": False},
            "do nothing",
        ),
        ({"quant_method": "hqq", "quant_bits": 4}, "needs a GPU"),
        ({"quant_method": "eetq"}, "needs a GPU"),
        ({"quant_method": "quanto"}, "no checkpoint format"),
        ({"quant_method": "fp8"}, "needs a GPU"),
    ],
)
def test_settings_of_the_model_section_are_checked_at_once(settings, words):
    with pytest.raises(ValueError, match=words):
        ModelSection(model="m", **settings)


def test_flags_of_sft_mean_the_model_and_full_training_is_refused():
    flags = ["--model", "m", "--dataset", "d", "--quant_method", "bnb", "--quant_bits", "4"]
    values = recipe_from_flags("sft", flags)
    assert values["model"] == {"model": "m", "quant_method": "bnb", "quant_bits": 4}
    recipe = Recipe(name="qlora", **values)
    assert LoadQuantization.of(recipe.model) == LoadQuantization(bits=4)
    with pytest.raises(ValueError, match="use train_type lora"):
        Recipe(name="qlora", **values, tuner={"train_type": "full"})
