"""Going on with an adapter: it starts where that stopped, keeps its shape, fits its base alone."""

import pytest
import torch
from training_setup import (
    counting_rows,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.artifacts import Store
from swiftcore.errors import ModelMissing, UsageError
from swiftcore.models import load_model
from swiftcore.models.files import read_json
from swiftcore.recipe import ModelSection, TunerSection, load_recipe
from swiftcore.recipe.sections import Recipe
from swiftcore.stages.graph import build_road
from swiftcore.tuners import count_parameters, load_adapter, prepare_model, save_adapter

IDS = torch.tensor([list(range(20, 40)), list(range(30, 50))])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("continued") / "base", tie_word_embeddings=False)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def learn(model, steps: int = 4, rate: float = 1e-2) -> float:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        loss = model.train()(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def trained(base, folder, **settings):
    torch.manual_seed(0)
    model = prepare_model(load_model(base), TunerSection(**settings))
    loss = learn(model)
    save_adapter(model, folder)
    return model, loss


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_rank": 4, "modules_to_save": ["norm"]}, {}),
        ({"use_dora": True, "target_modules": ["q_proj", "up_proj"]}, {"use_dora": True}),
        ({"init_weights": "pissa", "lora_rank": 4}, {"lora_rank": 8}),
        ({"train_type": "longlora"}, {"train_type": "longlora"}),
        ({"train_type": "hra"}, {"train_type": "hra"}),
        ({"train_type": "adapter", "adapter_length": 8}, {"train_type": "adapter"}),
        ({"train_type": "reft", "reft_layers": [1]}, {"train_type": "reft", "reft_layers": [1]}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) or "nothing",
)
def test_it_starts_where_the_adapter_stopped_and_learns_on(base, tmp_path, settings, said):
    before, loss = trained(base, tmp_path / "adapter", **settings)
    model = prepare_model(load_model(base), TunerSection(**said), adapter=tmp_path / "adapter")
    torch.testing.assert_close(logits(model), logits(before), rtol=0, atol=1e-5)
    # What a start took out of the base is saved as a LoRA of twice the rank.
    doubled = 2 if settings.get("init_weights") == "pissa" else 1
    assert count_parameters(model).trainable == doubled * count_parameters(before).trainable
    assert learn(model, rate=1e-3) < loss
    save_adapter(model, tmp_path / "next")
    reloaded = logits(load_adapter(base, tmp_path / "next"))
    torch.testing.assert_close(reloaded, logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"lora_rank": 16}, "r 4"),
        ({"lora_alpha": 8}, "lora_alpha 32"),
        ({"use_dora": True}, "use_dora False"),
        ({"init_weights": "gaussian"}, "init_lora_weights True"),
        ({"target_modules": ["q_proj"]}, "target_modules"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"train_type": "vera"}, "another tuner"),
        ({"train_type": "reft"}, "another tuner"),
        ({"train_type": "full"}, "another tuner"),
    ],
)
def test_what_the_adapter_is_not_is_refused(base, tmp_path, said, words):
    trained(base, tmp_path / "adapter", lora_rank=4)
    with pytest.raises(UsageError) as caught:
        prepare_model(load_model(base), TunerSection(**said), adapter=tmp_path / "adapter")
    assert words in str(caught.value)


def test_settings_of_a_tuner_of_ours_are_compared_too(base, tmp_path):
    trained(base, tmp_path / "adapter", train_type="reft", reft_rank=2)
    section = TunerSection(train_type="reft", reft_rank=3)
    with pytest.raises(UsageError, match="reft_rank 2"):
        prepare_model(load_model(base), section, adapter=tmp_path / "adapter")


def test_cut_ranks_are_not_trained_on(base, tmp_path):
    section = TunerSection(train_type="adalora")
    save_adapter(prepare_model(load_model(base), section, total_steps=50), tmp_path / "adapter")
    with pytest.raises(UsageError, match="cut already"):
        prepare_model(load_model(base), section, adapter=tmp_path / "adapter")


def test_a_second_run_goes_on_and_an_adapter_of_another_base_is_refused(base, tmp_path):
    encoded = write_encoded(tmp_path / "encoded", counting_rows(12))
    first = make_job(tmp_path / "first", base, encoded, tuner={"lora_rank": 4}, max_steps=6)
    before = train_in_this_process(first).metrics
    second = make_job(tmp_path / "second", base, encoded, max_steps=6, learning_rate=1e-3)
    second = second.model_copy(update={"adapter_dir": first.out_dir})
    result = train_in_this_process(second)
    assert "goes on with the adapter out" in result.notes
    assert result.metrics["first_loss"] < before["first_loss"] - 0.1
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    assert read_json(second.out_dir / "adapter_config.json")["r"] == 4
    records = [read_json(job.out_dir / "base_model.json") for job in (first, second)]
    assert records[0] == records[1]
    other = tiny_base(tmp_path / "other", tie_word_embeddings=False, seed=7)
    wrong = make_job(tmp_path / "wrong", other, encoded).model_copy(
        update={"adapter_dir": first.out_dir}
    )
    with pytest.raises(UsageError, match="not the base model that the adapter was trained on"):
        train_in_this_process(wrong)


def test_a_recipe_feeds_the_adapter_by_content_into_its_train_step(base, tmp_path):
    trained(base, tmp_path / "adapter", lora_rank=4)
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n')
    text = "name: on\nmodel: {model: %s, adapters: [%s]}\ndata: {dataset: [%s]}\n"
    recipe = tmp_path / "on.yaml"
    recipe.write_text(text % (base, tmp_path / "adapter", tmp_path / "rows.jsonl"))
    step = build_road(load_recipe(recipe), Store(tmp_path / "store")).step("train")
    assert step.inputs["adapter"].path == tmp_path / "adapter"
    assert step.stage.config(step.recipe)["model"] == {}
    recipe.write_text(text % (base, base, tmp_path / "rows.jsonl"))
    with pytest.raises(ModelMissing, match="adapter is not where"):
        build_road(load_recipe(recipe), Store(tmp_path / "store"))


def test_one_adapter_over_a_given_model_and_not_for_full():
    with pytest.raises(ValueError, match="one adapter is trained at a time"):
        ModelSection(model="m", adapters=["a", "b"])
    with pytest.raises(ValueError, match="a model that is new"):
        ModelSection(scratch={}, adapters=["a"])
    given = {"name": "r", "model": {"model": "m", "adapters": ["a"]}, "data": {"dataset": ["d"]}}
    with pytest.raises(ValueError, match="trains no adapter"):
        Recipe(**given, tuner={"train_type": "full"})
    with pytest.raises(ValueError, match="give one of them"):
        Recipe(**given, train={"resume_from_checkpoint": "checkpoint-4"})
