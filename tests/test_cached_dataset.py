"""A dataset encoded once: trained on later, and refused when it no longer belongs."""

import json
from pathlib import Path

import pytest
from tiny_model import build_model, build_tokenizer

from swiftcore.artifacts import Store
from swiftcore.cli.main import main
from swiftcore.errors import ArtifactDamaged, DataError, RecipeError, UsageError
from swiftcore.recipe import build_recipe
from swiftcore.stages import build_road
from tests.roads import write_rows


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base model and a dataset that `swift export` encoded for it."""
    folder = tmp_path_factory.mktemp("cached")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder / "base")
    build_model(tokenizer).save_pretrained(folder / "base")
    rows = [{"query": f"say {n}", "response": f"it is {n}"} for n in range(40)]
    write_rows(folder / "rows.jsonl", rows)
    flags = ["--to_cached_dataset", "true", "--output_dir", str(folder / "encoded"), "--json"]
    flags += ["--model", str(folder / "base"), "--dataset", str(folder / "rows.jsonl")]
    flags += ["--template", "chatml", "--max_length", "64", "--store", str(folder / "store")]
    assert main(["export", *flags]) == 0
    return folder


def _road(folder: Path, *, name: str = "encoded", **changes):
    values = {
        "name": "later",
        "model": {"model": str(folder / "base")},
        "data": {"cached_dataset": [str(folder / name)]},
        "template": {"template": "chatml", "max_length": 64},
        "runtime": {"store": str(folder / "store")},
    } | changes
    loaded = build_recipe(values, path=Path("later"))
    return build_road(loaded, Store(loaded.runtime.store))


def test_training_takes_the_encoded_dataset_instead_of_raw_rows(encoded: Path):
    road = _road(encoded)
    assert [step.stage.name for step in road.steps] == ["train"]
    record = json.loads((encoded / "encoded/record.json").read_text())
    assert road.step("train").inputs["encoded"].fingerprint == record["fingerprint"]


def test_training_on_it_from_flags_really_trains(encoded: Path, capsys):
    flags = ["--model", str(encoded / "base"), "--cached_dataset", str(encoded / "encoded")]
    flags += ["--template", "chatml", "--max_length", "64", "--max_steps", "2", "--json"]
    flags += ["--split_dataset_ratio", "0", "--store", str(encoded / "store")]
    assert main(["sft", *flags]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (Path(made["path"]) / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    "template", [{"template": "chatml"}, {"template": "qwen2_5", "max_length": 64}]
)
def test_other_template_settings_make_it_stale(encoded: Path, template: dict):
    with pytest.raises(UsageError, match="in another way"):
        _road(encoded, template=template)


def test_another_tokenizer_makes_it_stale(encoded: Path):
    config = encoded / "base/tokenizer_config.json"
    before = config.read_text()
    try:
        config.write_text(json.dumps(json.loads(before) | {"model_max_length": 77}))
        with pytest.raises(UsageError, match="in another way") as caught:
            _road(encoded)
        assert "tokenizer files" in (caught.value.found or "")
    finally:
        config.write_text(before)


def test_an_altered_byte_is_found(encoded: Path):
    import shutil

    shutil.copytree(encoded / "encoded", encoded / "altered")
    with (encoded / "altered/train.parquet").open("r+b") as stream:
        stream.seek(200)
        stream.write(b"\0\1\2\3")
    with pytest.raises(ArtifactDamaged):
        _road(encoded, name="altered")


def test_a_folder_that_is_no_encoded_dataset_is_bad_data(encoded: Path):
    with pytest.raises(DataError, match="no encoded dataset"):
        _road(encoded, name="base")


def test_what_needs_the_raw_rows_is_refused(encoded: Path):
    with pytest.raises(RecipeError):
        _road(encoded, evaluate={})
    with pytest.raises(RecipeError):
        _road(encoded, data={"cached_dataset": ["x"], "dataset": ["y"]})
