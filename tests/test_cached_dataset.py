"""A dataset encoded once: trained on later, and refused when it no longer belongs."""

import json
from pathlib import Path

import pytest
from tiny_model import build_model, build_tokenizer

from swiftcore.artifacts import Store
from swiftcore.cli.main import main
from swiftcore.data import load_rows
from swiftcore.errors import ArtifactDamaged, DataError, RecipeError, UsageError
from swiftcore.recipe import Runtime, build_recipe
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.stages import build_road, run_steps
from swiftcore.template import load_encoded
from tests.roads import write_rows


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base model and a dataset that `swift export` encoded for it."""
    folder = tmp_path_factory.mktemp("cached")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder / "base")
    build_model(tokenizer).save_pretrained(folder / "base")
    for name, verb, count in (("encoded", "say", 40), ("second", "tell", 20)):
        rows = [{"query": f"{verb} {n}", "response": f"it is {n}"} for n in range(count)]
        write_rows(folder / f"{name}.jsonl", rows)
        flags = ["--to_cached_dataset", "true", "--output_dir", str(folder / name), "--json"]
        flags += ["--model", str(folder / "base"), "--dataset", str(folder / f"{name}.jsonl")]
        flags += ["--template", "chatml", "--max_length", "64", "--store", str(folder / "store")]
        assert main(["export", *flags, "--split_dataset_ratio", "0.1"]) == 0
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


def test_flags_name_encoded_datasets(encoded: Path):
    flags = ["--model", str(encoded / "base"), "--template", "chatml", "--max_length", "64"]
    flags += ["--cached_dataset", str(encoded / "encoded"), str(encoded / "second")]
    loaded = build_recipe(recipe_from_flags("sft", flags), path=Path("flags"))
    road = build_road(loaded, Store(encoded / "store"))
    assert [step.stage.name for step in road.steps] == ["join", "train"]


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


@pytest.mark.parametrize(
    "data",
    [{"dataset": ["y"]}, {"val_dataset": ["encoded.jsonl"]}, {"test_dataset": ["second.jsonl"]}],
)
def test_rows_that_nothing_would_read_are_refused(encoded: Path, monkeypatch, data):
    monkeypatch.chdir(encoded)
    with pytest.raises(RecipeError):
        _road(encoded, data={"cached_dataset": ["encoded"]} | data)
    with pytest.raises(RecipeError, match="don't fit together"):
        _road(encoded, evaluate={})


def _both(folder: Path, **data) -> dict:
    return {"cached_dataset": [str(folder / "encoded"), str(folder / "second")], **data}


def test_several_are_joined_in_their_order_without_encoding_again(encoded: Path):
    road = _road(encoded, data=_both(encoded))
    assert [step.stage.name for step in road.steps] == ["join", "train"]
    made = run_steps(road.until("join"), Store(encoded / "store"), Runtime(store=encoded / "store"))
    joined = made["later/join"].path
    for split, count in (("train", 54), ("val", 6)):
        rows = list(load_encoded(joined, split))
        parts = [
            row["input_ids"]
            for part in ("encoded", "second")
            for row in load_encoded(encoded / part, split)
        ]
        assert [row["input_ids"] for row in rows] == parts
        assert len({row["row"] for row in rows}) == len(rows) == count
    settings = [
        (folder / "swift_template.json").read_text() for folder in (joined, encoded / "second")
    ]
    assert settings[0] == settings[1]


def test_a_stale_one_among_several_and_one_named_twice_are_refused(encoded: Path):
    with pytest.raises(UsageError, match="in another way"):
        _road(encoded, data=_both(encoded), template={"template": "chatml"})
    twice = {"cached_dataset": [str(encoded / "encoded")] * 2}
    with pytest.raises(UsageError, match="named twice"):
        _road(encoded, data=twice)


def test_training_on_them_and_evaluation_compares_with_the_rows_they_were_encoded_from(
    encoded: Path,
):
    test = [{"query": "tell 3", "response": "it is 3"}, {"query": "new?", "response": "yes"}]
    write_rows(encoded / "test.jsonl", test)
    road = _road(
        encoded,
        data=_both(encoded, test_dataset=[str(encoded / "test.jsonl")]),
        train={"max_steps": 1, "logging_steps": 1},
        evaluate={"max_new_tokens": 2},
    )
    assert [step.stage.name for step in road.steps] == ["join", "ingest", "train", "evaluate"]
    store = Store(encoded / "store")
    made = run_steps(road.steps, store, Runtime(store=encoded / "store", num_threads=1))
    report = json.loads((made["later/evaluate"].path / "report.json").read_text())
    found = report["contamination"]
    inputs = road.step("evaluate").inputs
    behind = [inputs[f"trained on[{place}]"].path for place in range(2)]
    trained = [row["messages"][0]["content"] for path in behind for row in load_rows(path, "train")]
    assert (found["num_test"], found["num_train"]) == (2, len(trained)) == (2, 54)
    assert found["exact"] == ("tell 3" in trained)
    rows = {row["messages"][0]["content"] for row in load_rows(made["later/ingest"].path, "test")}
    assert rows == {"tell 3", "new?"}


def test_evaluation_without_the_rows_behind_is_refused(encoded: Path, tmp_path: Path):
    with pytest.raises(DataError, match="rows that the cached dataset was encoded from"):
        _road(
            encoded,
            data=_both(encoded, test_dataset=[str(encoded / "encoded.jsonl")]),
            evaluate={},
            runtime={"store": str(tmp_path / "other")},
        )


@pytest.mark.parametrize(("stages", "expected"), [({"template"}, "t"), ({"join"}, "j"), ((), None)])
def test_a_flow_encodes_joins_or_takes_what_is_encoded(monkeypatch, stages, expected):
    from flows import road

    class Trip:
        def has(self, stage: str) -> bool:
            return stage in stages

    monkeypatch.setattr(road, "template", lambda journey, dataset, model: "t")
    monkeypatch.setattr(road, "join", lambda journey: "j")
    assert road.encode(Trip(), None, None) == expected
