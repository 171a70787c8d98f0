"""The argument catalogue and recipes written as flags: a frozen surface, and honest refusals."""

import json
import subprocess
import sys

import pytest
from pydantic import BaseModel

from swiftcore.errors import UsageError
from swiftcore.recipe import Recipe, Runtime, build_recipe
from swiftcore.recipe.arguments import find_argument, list_arguments, recipe_from_flags
from swiftcore.recipe.catalogue import OWN_GROUP, model_inside
from swiftcore.recipe.sections import COMMAND_SECTIONS

NUM_DOCUMENTED = 463
NUM_MODEL_SPECIFIC = 35
MODEL = ["--model", "m", "--dataset", "d.jsonl"]


def test_every_documented_argument_is_listed_once():
    arguments = list_arguments()
    assert len({a.name for a in arguments}) == len(arguments)
    documented = [a for a in arguments if a.group != OWN_GROUP]
    assert len(documented) == NUM_DOCUMENTED
    upper = [a for a in documented if a.name.isupper()]
    by_family = [a for a in upper if a.group not in {"Environment", "GRPO"}]
    assert len(by_family) == NUM_MODEL_SPECIFIC


def test_every_argument_says_what_it_is():
    for argument in list_arguments():
        assert argument.description, argument.name
        assert argument.status == "works" or argument.status.startswith("refused: ")
        assert bool(argument.acts_in) == argument.works
        inner = argument.type.removeprefix("list[").removesuffix("]")
        assert inner in {"bool", "int", "float", "str", "json"}
        json.dumps([argument.default, argument.default_here, argument.elsewhere])


def leaves(model: type[BaseModel], path: str = ""):
    for name, info in model.model_fields.items():
        inner = model_inside(info.annotation)
        if inner is None:
            yield path + name
        else:
            yield from leaves(inner, f"{path}{name}.")


def test_every_field_of_recipe_command_and_runtime_is_an_argument_that_works():
    acting = {path for argument in list_arguments() for path in argument.acts_in}
    fields = set(leaves(Recipe)) | set(leaves(Runtime, "runtime."))
    for name, section in COMMAND_SECTIONS.items():
        fields |= set(leaves(section, f"{name}."))
    assert fields <= acting
    elsewhere = {"merge", "environment", "swift export", "swift eval", "swift sample"}
    assert acting - fields == elsewhere


@pytest.mark.parametrize(
    ("name", "group", "type_", "default", "acts_in"),
    [
        ("lora_rank", "LoRA", "int", 8, "tuner.lora_rank"),
        ("target_modules", "Tuner", "list[str]", ["all-linear"], "tuner.target_modules"),
        ("columns", "Data", "json", None, "data.columns"),
        ("learning_rate", "Seq2SeqTrainer", "float", None, "train.learning_rate"),
        ("gradient_checkpointing", "Seq2SeqTrainer", "bool", True, "train.gradient_checkpointing"),
    ],
)
def test_a_working_argument(name, group, type_, default, acts_in):
    argument = find_argument(name)
    assert argument is not None
    assert (argument.group, argument.type, argument.default) == (group, type_, default)
    assert (argument.status, argument.acts_in) == ("works", (acts_in,))


def test_documented_default_and_ours_are_both_told():
    host = find_argument("host")
    assert (host.default, host.default_here) == ("0.0.0.0", "127.0.0.1")


def test_a_name_that_several_groups_document_tells_all_defaults():
    assert find_argument("temperature").elsewhere == {
        "Training": 0,
        "RLHF": 0.9,
        "Evaluation": 0,
        "Sampling": 1.0,
    }


@pytest.mark.parametrize("name", ["num_generations", "sglang_enable_ep_moe", "MAX_PIXELS"])
def test_what_does_not_work_says_why(name):
    assert find_argument(name).status.startswith("refused: ")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("tuner_type", "train_type"),
        ("eval_metric", "metric"),
        ("num_sampling_batches", "num_sampling_per_gpu_batches"),
        ("mcore_adapter", "mcore_adapters"),
        ("lora-rank", "lora_rank"),
    ],
)
def test_names_of_ms_swift_4_and_dashes_are_accepted(alias, name):
    assert find_argument(alias) is find_argument(name)
    assert find_argument(name) is not None


def test_unknown_name_is_none():
    assert find_argument("lora_r") is None


def test_sft_flags_become_a_valid_recipe():
    flags = (
        "--model m --dataset a.jsonl b.jsonl#5 --columns {'a':'query'} --strict "
        "--train_type lora --lora_rank 16 --target_modules q_proj v_proj --learning_rate 1e-4 "
        "--gradient_checkpointing false --seed=7 --max_steps -1 --store s"
    )
    values = recipe_from_flags("sft", flags.replace("'", '"').split())
    assert values == {
        "model": {"model": "m"},
        "data": {"dataset": ["a.jsonl", "b.jsonl#5"], "columns": {"a": "query"}, "strict": True},
        "tuner": {"train_type": "lora", "lora_rank": 16, "target_modules": ["q_proj", "v_proj"]},
        "train": {
            "method": "sft",
            "learning_rate": 1e-4,
            "gradient_checkpointing": False,
            "seed": 7,
            "max_steps": -1,
        },
        "runtime": {"store": "s"},
    }
    loaded = build_recipe(values)
    assert loaded.recipe.tuner.lora_rank == 16
    assert str(loaded.runtime.store) == "s"


def test_the_command_decides_which_section_a_name_means():
    assert recipe_from_flags("pt", MODEL)["train"] == {"method": "pt"}
    assert recipe_from_flags("eval", ["--max_new_tokens", "9"])["evaluate"] == {"max_new_tokens": 9}
    assert recipe_from_flags("deploy", ["--max_new_tokens", "9", "--port", "0"]) == {
        "deploy": {"max_new_tokens": 9},
        "runtime": {"port": 0},
    }
    exported = recipe_from_flags("export", [*MODEL, "--quant_method", "bnb", "--quant_bits", "4"])
    assert exported["quantize"] == {"quant_method": "bnb", "quant_bits": 4}


def test_merging_is_the_presence_of_its_section():
    assert recipe_from_flags("merge-lora", []) == {"merge": {}}
    assert recipe_from_flags("export", ["--merge_lora"]) == {"merge": {}}
    assert recipe_from_flags("export", ["--merge_lora", "false"]) == {}


def test_fields_inside_fields_are_written_with_a_dot():
    values = recipe_from_flags("pt", ["--scratch.hidden_size", "64", "--dataset", "d"])
    assert values["model"] == {"scratch": {"hidden_size": 64}}


@pytest.mark.parametrize(
    ("words", "value"),
    [(["a", "b"], ["a", "b"]), (['["a", "b c"]'], ["a", "b c"]), (["a b"], ["a b"])],
)
def test_lists_are_words_or_json(words, value):
    assert recipe_from_flags("sft", ["--dataset", *words])["data"]["dataset"] == value


def test_a_dictionary_may_be_in_a_json_file(tmp_path):
    path = tmp_path / "columns.json"
    path.write_text('{"a": "query"}')
    assert recipe_from_flags("sft", ["--columns", str(path)])["data"]["columns"] == {"a": "query"}


def test_value_names_of_ms_swift_4_are_accepted():
    values = recipe_from_flags("deploy", ["--infer_backend", "transformers"])
    assert values["deploy"]["infer_backend"] == "pt"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--lora_r", "8"], "--lora_r: no such argument; did you mean --lora_rank"),
        (["--lerning_rate", "1"], "did you mean --learning_rate"),
        (["--num_generations", "8"], "--num_generations: refused: GRPO is not built yet"),
        (["--output_dir", "o"], "name it with --store"),
        (["--quant_n_samples", "4"], "does not act in swift sft; it sets quantize.quant_n_samples"),
        (["--merge_lora"], "does not act in swift sft; it sets merge"),
        (["--CUDA_VISIBLE_DEVICES", "0"], "an environment variable, not a flag"),
        (["--lora_rank", "eight"], "takes a whole number, found eight"),
        (["--lora_rank", "8", "9"], "takes one value, found 2"),
        (["--lora_rank"], "takes one value, found 0"),
        (["--strict", "maybe"], "takes true or false, found maybe"),
        (["--columns", "{a}"], "takes a JSON object"),
        (["--columns", "[1]"], "takes a JSON object"),
        (["--columns", "none.json"], "can't read none.json"),
        (["--dataset"], "takes one or more values, found none"),
        (["--dataset", "[oops"], "takes words or a JSON list"),
        (["--tuner_type", "lora", "--train_type", "full"], "given twice with different values"),
        (["--method", "pt"], "swift sft sets it already"),
        (["stray"], "stray: a value without a flag before it"),
    ],
)
def test_a_wrong_flag_is_refused_with_a_hint(flags, text):
    with pytest.raises(UsageError) as caught:
        recipe_from_flags("sft", flags)
    assert caught.value.exit_code == 2
    assert text in str(caught.value)


def test_all_wrong_flags_are_reported_at_once():
    with pytest.raises(UsageError) as caught:
        recipe_from_flags("sft", ["--lora_r", "8", "--use_vllm", "--lora_rank", "x"])
    assert caught.value.message == "3 flags have problems."
    assert len(caught.value.found.splitlines()) == 3


@pytest.mark.parametrize("command", ["rlhf", "rollout", "nonsense"])
def test_a_command_that_is_not_built_is_refused(command):
    with pytest.raises(UsageError, match="is not built yet"):
        recipe_from_flags(command, MODEL)


def test_the_catalogue_needs_no_heavy_import():
    code = (
        "import sys; from swiftcore.recipe.arguments import list_arguments; list_arguments();"
        "print(sorted({'torch', 'transformers', 'numpy', 'prefect', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
