"""Every mistake in a recipe is found at once, with its line and what to write instead."""

import os
from pathlib import Path

import pytest

from swiftcore.artifacts import Store
from swiftcore.errors import RecipeError
from swiftcore.recipe import LoadedRecipe, build_recipe, load_recipe
from swiftcore.stages import build_road
from tests.making import REPO

MINIMAL = "model: {model: base}\ndata: {dataset: [rows.jsonl]}\n"


def write(folder: Path, text: str, name: str = "demo.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> LoadedRecipe:
    return load_recipe(write(folder, text), overrides)


def refused(folder: Path, text: str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as raised:
        load(folder, text, *overrides)
    assert raised.value.exit_code == 2
    assert raised.value.do
    return raised.value


def test_recipe_takes_its_name_from_the_file(tmp_path: Path):
    assert load(tmp_path, MINIMAL).recipe.name == "demo"
    assert load(tmp_path, MINIMAL + "name: other\n").recipe.name == "other"


def test_a_system_prompt_can_stand_in_a_text_file(tmp_path: Path):
    file = tmp_path / "system.txt"
    file.write_text("You are brief.\nAnd kind.\n", encoding="utf-8")
    text = MINIMAL + f"template: {{system: {file}}}\n"
    assert load(tmp_path, text).recipe.template.system == "You are brief.\nAnd kind.\n"
    file.unlink()
    assert f"the file {file} can't be read: " in str(refused(tmp_path, text).found)


def test_misspelt_key_is_named_with_its_line_and_the_nearest_name(tmp_path: Path):
    error = refused(tmp_path, MINIMAL + "train:\n  learning_rte: 0.1\n")
    assert error.found == (
        f"{tmp_path}/demo.yaml:4: train.learning_rte: no such name; did you mean learning_rate?"
    )


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("trian: {}\n", "did you mean train?"),
        ("runtme: {}\n", "did you mean runtime?"),
        ("runtime: {prot: 1}\n", "did you mean port?"),
        ("deploy: {gate: {min_valeu: 1}}\n", "did you mean min_value?"),
        ("train: {lora_rnk: 4}\n", "did you mean lora_rank?"),
        ("merge: {zzz: 1}\n", "legal names: max_shard_size, max_logit_difference"),
    ],
)
def test_nearest_name_is_looked_for_in_the_right_section(tmp_path: Path, text: str, nearest: str):
    assert nearest in str(refused(tmp_path, MINIMAL + text).found)


def test_all_problems_are_reported_at_once(tmp_path: Path):
    error = refused(
        tmp_path,
        "model: {model: base}\n"
        "data:\n"
        "  dataset: [rows.jsonl]\n"
        "  split_dataset_ratio: 2\n"
        "train:\n"
        "  max_steps: many\n"
        "  seed: 1\n"
        "  seed: 2\n"
        "merge:\n"
        "runtime: {port: 99999}\n",
        "train.wrong=1",
        "nonsense",
    )
    lines = str(error.found).splitlines()
    assert error.message == "The recipe has 7 problems."
    for words in (
        "demo.yaml:4: data.split_dataset_ratio",
        "demo.yaml:6: train.max_steps",
        "demo.yaml:8: train.seed: written twice",
        "demo.yaml:9: merge: empty; write {}",
        "demo.yaml:10: runtime.port",
        "--set train.wrong=1: train.wrong: no such name",
        "--set nonsense: write --set section.field=value",
    ):
        assert any(words in line for line in lines), (words, lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {max_steps: 1.5}\n", "max_steps"),
        ("train: {learning_rate: fast}\n", "found 'fast'"),
        ("train: {learning_rate: .inf}\n", "finite"),
        ("train: {save_strategy: never}\n", "'no', 'steps' or 'epoch'"),
        ("train: 5\n", "train"),
        ("tuner: lora\n", "tuner"),
        ("tuner: lora\ntrain: {lora_rank: 4}\n", "tuner"),
        ("runtime: 0\n", "runtime"),
        ("name: a/b\n", "use letters, digits"),
        ("1: x\n", "1"),
    ],
)
def test_wrong_type_or_value_is_refused_in_words(tmp_path: Path, text: str, words: str):
    assert words in str(refused(tmp_path, MINIMAL + text).found)


def test_missing_section_is_named(tmp_path: Path):
    found = str(refused(tmp_path, "train: {}\n").found)
    assert "model: missing" in found
    assert "data: missing" in found


def test_model_needs_exactly_one_origin(tmp_path: Path):
    for model in ("{}", "{model: a, scratch: {}}"):
        error = refused(tmp_path, f"model: {model}\ndata: {{dataset: [x]}}\n")
        assert "either model.model or model.scratch" in str(error.found)


@pytest.mark.parametrize(
    "text",
    ["", "# only a comment\n", "- a\n- b\n", "just text", "a: b: c\n", "a: [1\n", "{[a]: b}\n",
     "\x00", "a: &x [*x]\n", "- " * 3000, "--- \na: 1\n--- \nb: 2\n"],
)  # fmt: skip
def test_file_that_is_no_mapping_of_sections_is_refused(tmp_path: Path, text: str):
    refused(tmp_path, text)


def test_line_of_a_syntax_error_is_given(tmp_path: Path):
    assert str(refused(tmp_path, MINIMAL + "train: {a: [1}\n").where).endswith("demo.yaml:3")


def test_aliases_of_aliases_do_not_take_for_ever(tmp_path: Path):
    bomb = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(9))}}}\n" for n in range(1, 12)
    )
    refused(tmp_path, bomb)


def test_missing_file_names_the_nearest_one(tmp_path: Path):
    write(tmp_path, MINIMAL, "nano_base.yaml")
    with pytest.raises(RecipeError) as raised:
        load_recipe(tmp_path / "nano_bse.yaml")
    assert "nano_base.yaml?" in str(raised.value.expected)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x" * (1 << 21)])
def test_file_that_is_no_recipe_at_all_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(RecipeError):
        load_recipe(path)
    with pytest.raises(RecipeError):
        load_recipe(tmp_path)


def test_values_are_read_as_yaml_1_2(tmp_path: Path):
    recipe = load(
        tmp_path,
        MINIMAL + "train:\n  save_strategy: no\n  learning_rate: 1e-4\n"
        "  lr_scheduler_kwargs: {min_lr: 1e-5}\n",
    ).recipe
    assert recipe.train.save_strategy == "no"
    assert recipe.train.learning_rate == 1e-4
    assert recipe.train.lr_scheduler_kwargs == {"min_lr": 1e-5}


def test_override_reaches_its_section(tmp_path: Path):
    loaded = load(tmp_path, MINIMAL, "train.max_steps=7", "data.dataset=[a, b]", "runtime.port=0")
    assert loaded.recipe.train.max_steps == 7
    assert loaded.recipe.data.dataset == ["a", "b"]
    assert loaded.runtime.port == 0
    assert loaded.overrides == ("train.max_steps=7", "data.dataset=[a, b]", "runtime.port=0")


@pytest.mark.parametrize(
    "text",
    ["", "train: {lora_rank: 8}\n", "tuner: {lora_rank: 8}\n"],
    ids=["default", "under train", "under tuner"],
)
@pytest.mark.parametrize("override", ["train.lora_rank=16", "tuner.lora_rank=16"])
def test_override_of_a_tuner_field_wins_wherever_it_was_written(
    tmp_path: Path, text: str, override: str
):
    assert load(tmp_path, MINIMAL + text, override).recipe.tuner.lora_rank == 16


def test_override_can_switch_a_stage_on_and_off(tmp_path: Path):
    assert load(tmp_path, MINIMAL + "merge: {}\n", "merge=null").recipe.merge is None
    switched_on = load(tmp_path, MINIMAL, "merge.max_shard_size=1GB").recipe.merge
    assert switched_on is not None
    assert switched_on.max_shard_size == "1GB"


def test_tuner_field_written_twice_with_different_values_is_refused(tmp_path: Path):
    error = refused(tmp_path, MINIMAL + "train: {lora_rank: 4}\ntuner: {lora_rank: 8}\n")
    assert "demo.yaml:3: train.lora_rank: also written as tuner.lora_rank" in str(error.found)


def test_problem_of_a_moved_tuner_field_keeps_its_line(tmp_path: Path):
    error = refused(tmp_path, MINIMAL + "train:\n  seed: 1\n  lora_rank: 0\n")
    assert "demo.yaml:5: tuner.lora_rank" in str(error.found)


def test_override_below_a_value_is_refused(tmp_path: Path):
    error = refused(tmp_path, MINIMAL + "train: {seed: 1}\n", "train.seed.deep=1")
    assert "seed is not a section" in str(error.found)


def test_overriding_does_not_leak_through_a_yaml_alias(tmp_path: Path):
    text = "model: {model: base}\ndata: &d {dataset: [x]}\nruntime: {port: 1}\n"
    assert load(tmp_path, text, "data.strict=true").recipe.data.strict is True


def test_values_built_from_flags_are_checked_like_a_file():
    values = {"model": {"model": "m"}, "data": {"dataset": ["x"]}, "train": {"lora_rank": 4}}
    assert build_recipe(values).recipe.tuner.lora_rank == 4
    assert values["train"] == {"lora_rank": 4}
    with pytest.raises(RecipeError, match="did you mean dataset"):
        build_recipe({"model": {"model": "m"}, "data": {"datset": ["x"]}})


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, '{"messages": []}\n', "rows.jsonl")
    return tmp_path


def chain(folder: Path, **bases: str) -> None:
    for name, base in bases.items():
        text = f"model: {{model: 'recipe:{base}'}}\ndata: {{dataset: [rows.jsonl]}}\nmerge: {{}}\n"
        write(folder, text, f"{name}.yaml")


@pytest.mark.parametrize(
    "bases",
    [
        {"a": "a.yaml"},
        {"a": "b.yaml", "b": "a.yaml"},
        {"a": "b.yaml", "b": "c.yaml", "c": "./b.yaml"},
    ],
    ids=["itself", "two", "further down"],
)
def test_recipes_in_a_circle_are_refused(in_folder: Path, bases: dict[str, str]):
    chain(in_folder, **bases)
    with pytest.raises(RecipeError, match="circle"):
        build_road(load_recipe("a.yaml"), Store(in_folder / "store"))


def test_two_recipes_of_one_name_in_a_chain_are_refused(in_folder: Path):
    chain(in_folder, a="b.yaml", b="c.yaml")
    text = (
        "name: a\nmodel: {scratch: {}}\ndata: {dataset: [rows.jsonl]}\ntuner: {train_type: full}\n"
    )
    write(in_folder, text, "c.yaml")
    with pytest.raises(RecipeError, match="same name"):
        build_road(load_recipe("a.yaml"), Store(in_folder / "store"))


@pytest.mark.parametrize("path", sorted((REPO / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_of_the_project_loads(path: Path):
    assert load_recipe(path).recipe.name == path.stem
    assert path.read_text().startswith(f"# swift run {os.path.relpath(path, REPO)}")
