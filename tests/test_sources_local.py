"""Local folders, patterns and saved datasets: what they stand for, in order, and nothing else."""

from pathlib import Path

import pyarrow as pa
import pytest

from swiftcore.data import parse_dataset_spec, read_rows, source_files
from swiftcore.errors import DataError, EnvironmentMissing, UsageError
from swiftcore.recipe.sections import DataSection


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("set/b.jsonl", "set/deep/a.csv", "set/deep/.x/h.jsonl", "set/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}\n')
    return tmp_path


def _names(*entries: str, **more: list[str]) -> list[str]:
    return [file.name for file in source_files(DataSection(dataset=list(entries), **more))]


def test_a_folder_stands_for_all_data_files_below_it(folder):
    assert _names("set") == ["set/b.jsonl", "set/deep/a.csv"]
    assert _names("set:deep") == ["set/deep/a.csv"]


def test_patterns_match_sorted_and_take_no_other_files(folder):
    (folder / "set/a.jsonl").write_text("{}")
    assert _names("set/*.jsonl#3") == ["set/a.jsonl", "set/b.jsonl"]
    assert _names("set/**/*") == ["set/a.jsonl", "set/b.jsonl", "set/deep/a.csv"]
    assert _names("set/[ab].jsonl") == ["set/a.jsonl", "set/b.jsonl"]
    with pytest.raises(DataError, match="no data file matches") as caught:
        _names("sett/*.jsonl")
    assert "set" in (caught.value.expected or "")
    with pytest.raises(UsageError, match="no subsets"):
        _names("set/*.jsonl:x")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    (folder / "a[1]*.jsonl").write_text("{}")
    assert _names("a[1]*.jsonl") == ["a[1]*.jsonl"]


@pytest.mark.parametrize("entry", ["set", "set/**/*.jsonl"])
def test_files_named_like_held_out_rows_are_not_trained_on(folder, entry):
    (folder / "set/test").mkdir()
    (folder / "set/test/c.jsonl").write_text("{}")
    with pytest.raises(UsageError) as caught:
        _names(entry)
    assert caught.value.found == "test/c.jsonl"
    assert _names("set/b.jsonl", test_dataset=[entry])[0] == "set/b.jsonl"


@pytest.mark.parametrize("entry", ["set", "set/*.jsonl", "set:deep"])
def test_a_link_out_of_the_folder_is_refused_with_its_place(folder, entry):
    (folder / "secret.jsonl").write_text("{}")
    where = "set/deep/link.jsonl" if entry.endswith("deep") else "set/link.jsonl"
    (folder / where).symlink_to(folder / "secret.jsonl")
    with pytest.raises(DataError, match="leads out of the folder") as caught:
        _names(entry)
    assert caught.value.where == where


def test_a_linked_folder_is_refused_outside_and_read_once_inside(folder):
    (folder / "set/again").symlink_to(folder / "set/deep")
    assert _names("set") == ["set/b.jsonl", "set/deep/a.csv"]
    (folder / "set/out").symlink_to("/etc")
    with pytest.raises(DataError, match="leads out of the folder"):
        _names("set")


def test_links_of_a_hub_cache_snapshot_are_its_own_files(folder):
    blob = folder / "datasets--org--set/blobs/1234"
    blob.parent.mkdir(parents=True)
    blob.write_text('{"text": "a"}\n')
    snapshot = folder / "datasets--org--set/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "rows.jsonl").symlink_to("../../blobs/1234")
    assert _names("datasets--org--set/snapshots/abc") == [
        "datasets--org--set/snapshots/abc/rows.jsonl"
    ]


def test_a_saved_dataset_is_its_arrow_files_and_its_splits_serve_their_roles(folder):
    datasets = pytest.importorskip("datasets")
    rows = {split: datasets.Dataset.from_list([{"text": split}]) for split in ("train", "test")}
    datasets.DatasetDict(rows).save_to_disk(folder / "saved")
    rows["train"].save_to_disk(folder / "single")
    section = DataSection(dataset=["single", "saved"], test_dataset=["saved"])
    found = [
        (file.role, [row.row for row in read_rows(file.path)]) for file in source_files(section)
    ]
    assert found == [
        ("train", [{"text": "train"}]),
        ("train", [{"text": "train"}]),
        ("test", [{"text": "test"}]),
    ]
    assert _names("saved:test") == ["saved/test/data-00000-of-00001.arrow"]


def test_arrow_files_in_a_folder_are_data(folder):
    table = pa.table({"text": ["a"]})
    with pa.ipc.new_file(folder / "set/c.arrow", table.schema) as writer:
        writer.write_table(table)
    assert "set/c.arrow" in _names("set")


def test_a_misspelt_path_is_no_hub_id_and_fails_at_once(folder, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for entry in ("sett/deep", "set/dep", "./org/set", "org/set.jsonl"):
        with pytest.raises(DataError, match="does not exist"):
            _names(entry)


def test_offline_a_possible_hub_id_is_an_error_with_the_nearest_path(folder):
    with pytest.raises(EnvironmentMissing) as caught:
        _names("team/chat")
    assert "set" in (caught.value.expected or "")


@pytest.mark.parametrize(
    ("text", "path", "revision", "subsets", "sample"),
    [
        ("hf::org/set@v1.0", "org/set", "v1.0", [], None),
        ("hf::org/set:sub@refs/pr/3#5", "org/set", "refs/pr/3", ["sub"], 5),
        ("ms::org/set@main:sub", "org/set", "main", ["sub"], None),
        ("https://h/a.jsonl?x=1#5", "https://h/a.jsonl?x=1", None, [], 5),
        ("s3://b/k/", "s3://b/k/", None, [], None),
        ("mlflow:/runs/1/rows#2", "mlflow:/runs/1/rows", None, [], 2),
        ("c:/data/x", "c", None, None, None),
    ],
)
def test_revisions_and_addresses_are_taken_apart(folder, text, path, revision, subsets, sample):
    if subsets is None:
        with pytest.raises(UsageError):
            parse_dataset_spec(text)
        return
    spec = parse_dataset_spec(text)
    assert (spec.path, spec.revision, spec.subsets, spec.sample) == (
        path,
        revision,
        subsets,
        sample,
    )


@pytest.mark.parametrize("text", ["hf::org/set@", "https://h/a#sha256=12", "https://h/a#x"])
def test_a_bad_revision_or_digest_is_a_usage_error(text):
    with pytest.raises(UsageError):
        parse_dataset_spec(text)
