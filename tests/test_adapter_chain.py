"""An adapter over frozen adapters: `model.frozen_adapters`, folded first to last."""

import json

import pytest
import torch
from test_export import SAMPLES, make_adapter
from training_setup import (
    counting_rows,
    folder_bytes,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.artifacts import Store
from swiftcore.errors import ModelMissing, RecipeError, UsageError
from swiftcore.export.fold import fold_adapters
from swiftcore.models import load_adapted_model, load_model
from swiftcore.models.base_record import BASE_RECORD, base_record
from swiftcore.models.files import read_json
from swiftcore.recipe import build_recipe
from swiftcore.stages import build_road
from swiftcore.stages.runner import run_steps

LORA = {"lora_rank": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": ["q_proj"]}
SCALE = 2.0


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("chain") / "base")


@pytest.fixture(scope="module")
def below(base, tmp_path_factory):
    """LoRA over the base, and the base folded with it."""
    root = tmp_path_factory.mktemp("below")
    adapter = make_adapter(base, root / "adapter", **LORA)
    fold_adapters(base, [adapter], root / "folded", root)
    return adapter, root / "folded"


def query_weights(model) -> list[torch.Tensor]:
    state = model.state_dict()
    return [state[name] for name in sorted(state) if name.endswith("q_proj.weight")]


def update(adapter) -> list[torch.Tensor]:
    """scale * B A of each layer, from the file alone."""
    from safetensors.torch import load_file

    stored = load_file(adapter / "adapter_model.safetensors")
    names = sorted(name for name in stored if name.endswith("lora_A.weight"))
    return [SCALE * stored[name.replace("lora_A", "lora_B")] @ stored[name] for name in names]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([SAMPLES[0]])).logits


def test_two_loras_add_up(base, below, tmp_path):
    first, folded = below
    second = make_adapter(folded, tmp_path / "second", **{**LORA, "lora_rank": 4, "lora_alpha": 8})
    reports = fold_adapters(base, [first, second], tmp_path / "both", tmp_path)
    assert all(report.max_logit_difference < 1e-5 for report in reports)
    found = query_weights(load_model(tmp_path / "both"))
    parts = zip(query_weights(load_model(base)), update(first), update(second), strict=True)
    for weight, (plain, one, two) in zip(found, parts, strict=True):
        torch.testing.assert_close(weight, plain + one + two, rtol=0, atol=1e-6)
        assert min(one.abs().max(), two.abs().max()) > 1e-3
    assert not (tmp_path / "below-1").exists()


def test_the_second_scales_what_the_first_made(base, below, tmp_path):
    """DoRA: m (W + dW) / |W + dW|, where W is the base with the first adapter."""
    first, folded = below
    second = make_adapter(folded, tmp_path / "dora", **LORA, use_dora=True)
    fold_adapters(base, [first, second], tmp_path / "both", tmp_path)
    merged, chained = load_model(tmp_path / "both"), load_adapted_model(folded, second)
    torch.testing.assert_close(logits(merged), logits(chained), rtol=0, atol=1e-5)
    from safetensors.torch import load_file

    stored = load_file(second / "adapter_model.safetensors")
    names = sorted(name for name in stored if "magnitude" in name)
    parts = zip(query_weights(load_model(base)), update(first), update(second), strict=True)
    for weight, name, (plain, one, two) in zip(query_weights(merged), names, parts, strict=True):
        whole = plain + one + two
        expected = stored[name][:, None] * whole / whole.norm(dim=1, keepdim=True)
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-5)


def test_another_order_is_refused(base, below, tmp_path):
    first, folded = below
    second = make_adapter(folded, tmp_path / "second", **LORA)
    with pytest.raises(UsageError, match="not the base model that the adapter was trained on"):
        fold_adapters(base, [second, first], tmp_path / "both", tmp_path)


def recipe(base, tmp_path, **model):
    rows = tmp_path / "rows.jsonl"
    line = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    rows.write_text(json.dumps(line) + "\n")
    return build_recipe(
        {
            "name": "chain",
            "model": {"model": str(base), **model},
            "data": {"dataset": [str(rows)]},
            "merge": {},
        }
    )


def test_every_later_step_of_a_road_starts_from_the_folded_base(base, below, tmp_path):
    first, folded = below
    store = Store(tmp_path / "store")
    loaded = recipe(base, tmp_path, frozen_adapters=[str(first)])
    road = build_road(loaded, store)
    names = [step.stage.name for step in road.steps]
    assert names == ["fold", "ingest", "template", "train", "merge"]
    fold = road.step("fold")
    assert [road.step(name).inputs["model"].step for name in ("train", "merge")] == [fold] * 2
    assert road.step("template").inputs["tokenizer"].step is fold
    made = run_steps(road.until("fold"), store, loaded.runtime)["chain/fold"]
    weights = "model.safetensors"
    assert (made.path / weights).read_bytes() == (folded / weights).read_bytes()
    assert made.record.metrics["adapters"] == 1


def test_training_over_a_frozen_adapter_moves_the_new_one_alone(below, tmp_path):
    _, folded = below
    before = folder_bytes(folded)
    encoded = write_encoded(tmp_path / "encoded", counting_rows(8))
    job = make_job(tmp_path, folded, encoded, tuner=LORA, max_steps=4, save_steps=4)
    result = train_in_this_process(job)
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    assert folder_bytes(folded) == before
    assert read_json(job.out_dir / BASE_RECORD)["weights"] == base_record(folded)["weights"]


def test_what_is_no_chain_is_refused(base, tmp_path):
    with pytest.raises(RecipeError, match="one adapter is trained at a time"):
        recipe(base, tmp_path, adapters=["a", "b"])
    with pytest.raises(RecipeError, match="over a model that is new"):
        recipe(None, tmp_path, model=None, scratch={}, frozen_adapters=["a"])
    loaded = recipe(base, tmp_path, frozen_adapters=["nowhere"])
    with pytest.raises(ModelMissing) as caught:
        build_road(loaded, Store(tmp_path / "store"))
    assert "model.frozen_adapters" in caught.value.where
