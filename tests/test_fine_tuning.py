"""Fine-tuning from Python: the same recipe, stages and artifacts as through every other door."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from training_setup import tiny_base

from swiftcore import (
    EarlyStoppingConfig,
    LoRAConfig,
    Trainer,
    TrainingConfig,
    fine_tune,
)
from swiftcore.errors import RecipeError, UsageError
from swiftcore.models import load_adapted_model
from swiftcore.recipe import build_recipe
from swiftcore.recipe.arguments import recipe_from_flags
from tests.making import REPO

QUESTIONS = [
    {"messages": [{"role": "user", "content": f"{n} + 1?"}, {"role": "assistant", "content": "2"}]}
    for n in range(12)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fine_tuning")
    tiny_base(folder / "my-model")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    return folder


def documented_example() -> str:
    page = (REPO / "docs" / "training.md").read_text()
    section = page.partition("## From Python")[2]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


def test_the_documented_example_trains_an_adapter_and_a_second_call_reuses_it(
    place, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    names: dict = {}
    exec(documented_example(), names)
    result = names["result"]
    assert result.path == Path("out")
    assert not result.reused
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:-1]] == [str(step) for step in range(1, 10)]
    assert float(printed[8].split()[1]) == result.metrics["last_loss"]
    adapted = load_adapted_model(place / "my-model", result.path)
    assert adapted.peft_config["default"].r == 4

    exec(documented_example(), again := {})
    assert again["result"].reused
    assert again["result"].fingerprint == result.fingerprint

    (place / "taken").mkdir()
    (place / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        exec(documented_example().replace("./out", "./taken"), {})
    assert (place / "taken" / "mine.txt").read_text() == "mine"
    exec(documented_example().replace('"./out"', "None"), kept := {})
    assert kept["result"].path.is_relative_to(place / ".swift" / "store")


def test_a_configuration_is_the_recipe_that_flags_make(place):
    config = TrainingConfig(
        model=str(place / "my-model"),
        train_data=[place / "rows.jsonl"],
        learning_rate=2e-4,
        num_epochs=2,
        per_device_batch_size=4,
        max_seq_length=128,
        mixed_precision="bf16",
        lora=LoRAConfig(r=16, alpha=32, use_rslora=True, target_modules=["q_proj"]),
        name="same",
    )
    flags = recipe_from_flags(
        "sft",
        f"--model {place}/my-model --dataset {place}/rows.jsonl --learning_rate 2e-4 "
        "--num_train_epochs 2 --per_device_train_batch_size 4 --max_length 128 --torch_dtype "
        "bfloat16 --lora_rank 16 --lora_alpha 32 --use_rslora true --target_modules q_proj".split(),
    )
    assert config.recipe().recipe == build_recipe({"name": "same", **flags}).recipe


def test_defaults_are_those_of_a_recipe(place):
    """But for LoRA's, which are SwiftLLM's."""
    config = TrainingConfig(model="m", train_data="d", name="same", lora=LoRAConfig(r=8))
    plain = {"name": "same", "model": {"model": "m"}, "data": {"dataset": ["d"]}}
    assert config.recipe().recipe == build_recipe(plain).recipe


def test_texts_documents_and_hub_datasets(place):
    folder = place / "corpus"
    folder.mkdir()
    whole = TrainingConfig(model="m", train_data=folder).recipe().recipe
    assert whole.train.method == "pt"
    assert whole.data.documents.format == "pretraining"
    code = TrainingConfig(model="m", train_data=folder, dataset_format="code").recipe().recipe
    assert code.data.documents.format == "code"
    four_bits = TrainingConfig(model="m", train_data="d", method="qlora").recipe().recipe
    assert (four_bits.model.quant_method, four_bits.model.quant_bits) == ("bnb", 4)
    assert four_bits.tuner.lora_rank == 16
    early = TrainingConfig(
        model="m", train_data="d", val_data="v", early_stopping=EarlyStoppingConfig(patience=2)
    )
    assert early.recipe().recipe.train.early_stop_interval == 2
    hub = TrainingConfig(
        model="m", hf_dataset="org/set", hf_subset="easy", hf_max_samples=50, method="full"
    ).recipe()
    assert hub.recipe.data.dataset == ["hf::org/set:easy#50"]
    assert (hub.recipe.train.method, hub.recipe.tuner.train_type) == ("sft", "full")


def test_any_other_field_of_a_recipe_is_an_option():
    config = TrainingConfig(
        model="m",
        train_data="d",
        options={"train.group_by_length": True, "data.split_dataset_ratio": 0.1},
    )
    recipe = config.recipe().recipe
    assert recipe.train.group_by_length
    assert recipe.data.split_dataset_ratio == 0.1
    with pytest.raises(RecipeError, match="pakking"):
        TrainingConfig(model="m", train_data="d", options={"train.pakking": True}).recipe()


def test_what_makes_no_sense_is_refused_before_anything_runs():
    with pytest.raises(UsageError, match="no model is named"):
        fine_tune(train_data="d")
    with pytest.raises(UsageError, match="no train_data is named"):
        Trainer(TrainingConfig(model="m"))
    with pytest.raises(UsageError, match="no such setting") as caught:
        fine_tune("m", "d", learning_rat=1)
    assert "learning_rate" in caught.value.expected
    with pytest.raises(UsageError, match="given twice"):
        fine_tune("m", "d", lora_r=4, lora_config=LoRAConfig())
    with pytest.raises(UsageError, match="no low-rank matrices"):
        Trainer(TrainingConfig(model="m", train_data="d", method="full", lora=LoRAConfig()))


def test_importing_the_names_brings_no_torch():
    script = (
        "import sys; from swiftcore import fine_tune, Trainer, TrainingConfig, LoRAConfig; "
        "assert not {'torch', 'transformers', 'pyarrow'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
