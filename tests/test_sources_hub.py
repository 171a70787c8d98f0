"""Datasets from hubs, against a small server that speaks the used part of both hubs' APIs."""

import json
import time
from pathlib import Path

import pytest

from swiftcore.data import read_rows, source_files
from swiftcore.data.sources.hub import fetch_hub, hub_provenance
from swiftcore.data.sources.hub_layout import choose_files, split_of
from swiftcore.data.sources.registered import load_registered
from swiftcore.errors import DataError, EnvironmentMissing, TransientError, UsageError
from swiftcore.recipe.sections import DataSection
from tests.stub_hub import COMMIT, text_row


def _texts(folder: Path) -> dict[str, str]:
    return {
        path.name: next(read_rows(path)).row["text"]  # type: ignore[index]
        for path in sorted(folder.iterdir())
    }


@pytest.mark.parametrize("name", ["hf", "ms"])
def test_a_dataset_is_a_folder_of_its_files_split_by_split(hub, name):
    folder = fetch_hub(name, "org/set")
    assert _texts(folder) == {
        "test-00000-test.jsonl": "chat test",
        "train-00000-train-0.jsonl": "chat train 0",
        "train-00001-train-1.jsonl": "chat train 1",
    }
    assert _texts(fetch_hub(name, "org/set", subset="tools")) == {"train-00000-a.jsonl": "tools a"}
    assert not [path for path in hub.asked if path.endswith("set.py")]


def test_the_commit_is_recorded_and_what_is_here_is_not_fetched_again(hub):
    folder = fetch_hub("hf", "org/set", revision="v1")
    assert hub_provenance(folder) == {"hub": "hf", "dataset": "org/set", "revision": COMMIT}
    hub.asked.clear()
    assert fetch_hub("hf", "org/set") == folder
    assert hub.asked == ["GET /api/datasets/org/set"]


def test_a_new_commit_is_another_folder_and_the_old_one_stays_pinned(hub):
    old = fetch_hub("hf", "org/set")
    hub.commit = "b" * 40
    hub.datasets["org/set"]["chat/train-0.jsonl"] = text_row("new")
    new = fetch_hub("hf", "org/set")
    assert _texts(new)["train-00000-train-0.jsonl"] == "new"
    assert _texts(old)["train-00000-train-0.jsonl"] == "chat train 0"
    assert fetch_hub("hf", "org/set", revision=COMMIT, offline=True) == old


def test_modelscope_pins_what_it_listed(hub):
    first = fetch_hub("ms", "org/set")
    origin = hub_provenance(first)
    assert (origin["hub"], origin["revision"]) == ("ms", "master")
    assert len(origin["listing_sha256"]) == 64
    hub.datasets["org/set"]["chat/train-0.jsonl"] = text_row("new")
    assert fetch_hub("ms", "org/set") != first


@pytest.mark.parametrize("name", ["hf", "ms"])
def test_a_file_that_is_not_the_listed_one_is_thrown_away(hub, name, monkeypatch):
    # The library tries three times, with seconds in between.
    control = "modelscope_hub._download_control._DownloadControl.sleep"
    monkeypatch.setattr(control, lambda self, seconds: None)
    hub.altered = {"chat/train-1.jsonl"}
    with pytest.raises(DataError, match="not the one the hub lists"):
        fetch_hub(name, "org/set")
    hub.altered = set()
    assert len(_texts(fetch_hub(name, "org/set"))) == 3


def test_entries_name_subset_revision_and_role(hub):
    section = DataSection(
        dataset=["hf::org/set@main#1", "ms::org/set:tools"], test_dataset=["org/set"]
    )
    files = source_files(section)
    assert [(file.role, file.name) for file in files] == [
        ("train", "hf::org/set/chat/train-0.jsonl"),
        ("train", "hf::org/set/chat/train-1.jsonl"),
        ("train", "ms::org/set/tools/a.jsonl"),
        ("test", "hf::org/set/chat/test.jsonl"),
    ]
    assert files[0].provenance["revision"] == COMMIT
    assert files[0].provenance["file"] == "chat/train-0.jsonl"


def test_a_registered_dataset_of_a_hub_takes_its_splits_whatever_the_role(hub, tmp_path):
    info = [{"name": "mine", "hf": "org/set", "split": ["test", "train"]}]
    (tmp_path / "info.json").write_text(json.dumps(info))
    registry = load_registered([str(tmp_path / "info.json")])
    files = source_files(DataSection(dataset=["mine#2"]), registry=registry)
    assert [file.name.rpartition("/")[2] for file in files] == [
        "test.jsonl",
        "train-0.jsonl",
        "train-1.jsonl",
    ]
    assert files[0].provenance["registered_by"] == "info.json"


def test_offline_fails_at_once_and_names_the_nearest(hub, monkeypatch):
    folder = fetch_hub("hf", "org/set")
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch_hub("hf", "org/set") == folder
    started = time.monotonic()
    with pytest.raises(EnvironmentMissing) as caught:
        fetch_hub("hf", "org/sett")
    with pytest.raises(EnvironmentMissing):
        source_files(DataSection(dataset=["ms::org/other"]))
    assert time.monotonic() - started < 1
    assert "hf::org/set" in (caught.value.expected or "")
    assert hub.asked == []


def test_a_split_of_another_name_is_found_or_can_be_named(hub):
    card = "---\nconfigs:\n- data_files:\n"
    for split in ("train_sft", "test_sft", "test_gen"):
        card += f"  - split: {split}\n    path: {split}.jsonl\n"
        hub.datasets["org/set"][f"{split}.jsonl"] = text_row(split)
    hub.datasets["org/set"]["README.md"] = (card + "---\n").encode()
    (train,) = source_files(DataSection(dataset=["hf::org/set"]))
    assert train.name == "hf::org/set/train_sft.jsonl"
    with pytest.raises(DataError, match="no split for test rows") as caught:
        source_files(DataSection(dataset=["hf::org/set"], test_dataset=["hf::org/set"]))
    assert "test_sft" in (caught.value.found or "")
    section = DataSection(dataset=["hf::org/set"], test_dataset=["hf::org/set:test_gen"])
    assert source_files(section)[1].name == "hf::org/set/test_gen.jsonl"


@pytest.mark.parametrize("name", ["hf", "ms"])
def test_an_unknown_dataset_or_subset_is_bad_data(hub, name):
    with pytest.raises(DataError, match="no such dataset"):
        fetch_hub(name, "org/none")
    with pytest.raises(DataError, match="no such subset") as caught:
        fetch_hub(name, "org/set", subset="tool")
    assert caught.value.expected == "perhaps tools"
    with pytest.raises(UsageError):
        fetch_hub(name, "../../etc")


def test_an_unknown_revision_is_bad_data(hub):
    with pytest.raises(DataError, match="no revision v9"):
        fetch_hub("hf", "org/set", revision="v9")


def test_a_busy_hub_is_asked_again_and_a_hub_that_is_away_is_worth_another_try(hub, monkeypatch):
    hub.codes = [503, 502]
    assert fetch_hub("hf", "org/set").is_dir()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(TransientError) as caught:
        fetch_hub("hf", "org/other")
    assert caught.value.exit_code == 6
    assert time.monotonic() - started < 5


def test_a_dataset_of_scripts_alone_is_refused(hub):
    hub.datasets["org/script"] = {"script.py": b"print(1)"}
    with pytest.raises(DataError, match="no file that can be read") as caught:
        fetch_hub("hf", "org/script")
    assert "never run" in (caught.value.do or "")


def test_names_that_lead_out_of_the_repository_are_no_files(hub):
    hub.datasets["org/evil"] = {
        "../../../evil.jsonl": text_row("x"),
        "/tmp/evil.jsonl": text_row("x"),
    }
    with pytest.raises(DataError, match="no file that can be read"):
        fetch_hub("hf", "org/evil")


@pytest.mark.parametrize(
    ("files", "subset", "expected"),
    [
        (["train.jsonl", "test.jsonl"], None, {"train": 1, "test": 1}),
        (["a.jsonl", "b.jsonl", "dataset_infos.json"], None, {"train": 2}),
        (
            ["data/train-00000-of-00001.parquet", "data/dev.csv"],
            None,
            {"train": 1, "validation": 1},
        ),
        (["main/train.parquet", "other/train.parquet"], "main", {"train": 1}),
        (["default/a.jsonl", "extra/b.jsonl"], None, {"train": 1}),
        (["one/a.jsonl", "one/test/b.jsonl"], None, {"train": 1, "test": 1}),
        (["easy.jsonl", "hard.jsonl"], "hard", {"train": 1}),
        (["train.jsonl", "test.jsonl"], "test", {"test": 1}),
    ],
)
def test_without_a_card_folders_are_subsets_and_names_tell_splits(files, subset, expected):
    found = choose_files(files, None, subset, "org/set")
    assert {split: len(paths) for split, paths in found.items()} == (
        {"test": 1} if files[0].startswith("one") else expected
    )


def test_several_subsets_need_a_name():
    with pytest.raises(DataError, match="one must be named") as caught:
        choose_files(["a/1.jsonl", "b/1.jsonl"], None, None, "org/set")
    assert "a, b" in (caught.value.expected or "")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("en/validation.jsonl", "validation"),
        ("test/part.csv", "test"),
        ("latest.jsonl", None),
        ("trained_rows.jsonl", None),
    ],
)
def test_splits_are_whole_words_of_names(path, split):
    assert split_of(path) == split
