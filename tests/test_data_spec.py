"""The dataset syntax, and the files its entries stand for."""

from pathlib import Path

import pytest

from swiftcore.data import parse_dataset_spec, source_files
from swiftcore.errors import DataError, EnvironmentMissing, UsageError
from swiftcore.recipe.sections import DataSection


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("plain.jsonl", "with:colon.jsonl", "with#hash.jsonl", "a::b.jsonl"):
        (tmp_path / name).write_text('{"text": "a"}\n')
    (tmp_path / "many").mkdir()
    for name in ("b.jsonl", "a.csv.gz", "README.md", ".hidden.jsonl"):
        (tmp_path / "many" / name).write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "path", "hub", "subsets", "sample"),
    [
        ("plain.jsonl", "plain.jsonl", None, [], None),
        (" plain.jsonl # 7 ", "plain.jsonl", None, [], 7),
        ("with:colon.jsonl#3", "with:colon.jsonl", None, [], 3),
        ("with#hash.jsonl", "with#hash.jsonl", None, [], None),
        ("with#hash.jsonl#5", "with#hash.jsonl", None, [], 5),
        ("a::b.jsonl", "a::b.jsonl", None, [], None),
        ("hf::org/set:sub1/sub2#500", "org/set", "hf", ["sub1", "sub2"], 500),
        ("MS::org/set", "org/set", "ms", [], None),
        ("a#b#3", "a#b", None, [], 3),
    ],
)
def test_an_entry_is_taken_apart(folder, text, path, hub, subsets, sample):
    spec = parse_dataset_spec(text)
    assert (spec.path, spec.hub, spec.subsets, spec.sample) == (path, hub, subsets, sample)


@pytest.mark.parametrize("count", ["0", "-5", "x", "", "1.5", "1_000", "٣"])
def test_a_count_that_is_no_count_is_a_usage_error_naming_the_entry(folder, count):
    with pytest.raises(UsageError) as caught:
        parse_dataset_spec(f"plain.jsonl#{count}")
    assert f"plain.jsonl#{count}" in (caught.value.where or "")
    assert caught.value.found == f"#{count}"


@pytest.mark.parametrize("text", ["", "  ", "#3", "hf::", ":sub", "org/set:", "org/set:a//b"])
def test_an_entry_without_path_or_with_an_empty_subset_is_refused(text):
    with pytest.raises(UsageError):
        parse_dataset_spec(text)


def test_a_path_no_system_allows_is_missing_and_does_not_crash():
    with pytest.raises(DataError, match="does not exist"):
        source_files(DataSection(dataset=["x" * 5000 + ".jsonl"]))


def _files(*entries: str, **more: list[str]) -> list[tuple[str, str]]:
    section = DataSection(dataset=list(entries), **more)
    return [(file.role, file.name) for file in source_files(section)]


def test_source_files_come_in_reading_order_with_their_role(folder):
    assert _files("many#4", "plain.jsonl", test_dataset=["with#hash.jsonl"]) == [
        ("train", "many/a.csv.gz"),
        ("train", "many/b.jsonl"),
        ("train", "plain.jsonl"),
        ("test", "with#hash.jsonl"),
    ]


def test_a_subset_picks_files_of_a_folder(folder):
    assert _files("many:b") == [("train", "many/b.jsonl")]
    with pytest.raises(DataError, match="subset does not exist"):
        _files("many:c")
    with pytest.raises(UsageError, match="inside"):
        _files("many:..")
    with pytest.raises(UsageError, match="no subsets"):
        _files("plain.jsonl:b")


def test_a_missing_file_is_named_with_the_nearest_one(folder):
    with pytest.raises(DataError) as caught:
        _files("plian.jsonl#3")
    assert "plain.jsonl" in (caught.value.expected or "")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("path", ["./org/name", "many/none", "org/name.jsonl", "a/b/c", "gsm8k"])
def test_a_path_that_looks_local_is_never_a_hub_id(folder, path):
    with pytest.raises(DataError):
        _files(path)


@pytest.mark.parametrize("entry", ["org/name", "hf::name", "ms::org/name#3"])
def test_a_hub_id_is_refused_with_what_to_do(folder, entry):
    with pytest.raises(EnvironmentMissing) as caught:
        _files(entry)
    assert "download" in (caught.value.do or "")


def test_an_unknown_hub_is_refused_even_when_the_rest_is_a_file(folder):
    with pytest.raises(UsageError, match="unknown hub"):
        _files("xx::plain.jsonl")


def test_a_training_folder_with_held_out_files_is_refused(folder):
    (folder / "many" / "test.jsonl").write_text("x")
    with pytest.raises(UsageError) as caught:
        _files("many")
    assert caught.value.found == "test.jsonl"


def test_a_folder_without_data_files_is_refused(folder):
    (folder / "none").mkdir()
    with pytest.raises(DataError, match="no data file"):
        _files("none")
