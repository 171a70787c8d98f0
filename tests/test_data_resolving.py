"""Entries are resolved once a run: a hub is asked once, a registering file runs once."""

import json
from pathlib import Path

import pytest

from swiftcore.artifacts import Store
from swiftcore.errors import DataError
from swiftcore.recipe import build_recipe
from swiftcore.stages import build_road, run_steps
from tests.stub_hub import COMMIT, Hub

REGISTERING = """
from pathlib import Path

from swiftcore.data.sources.registered import register_dataset

with Path("ran.txt").open("a") as log:
    log.write("ran\\n")


def shouted(row):
    return {"query": row["text"], "response": row["text"].upper()}


register_dataset("mine", path="rows.jsonl", preprocess=shouted)
"""


def _road(folder: Path, **data):
    values = {
        "name": "resolving",
        "model": {"scratch": {"vocab_size": 300}},
        "data": data,
        "runtime": {"store": str(folder / "store"), "dataset_num_proc": 1},
    }
    loaded = build_recipe(values, path=folder / "recipe.yaml")
    store = Store(loaded.runtime.store)
    return build_road(loaded, store), store, loaded.runtime


def _ingest(road, store, runtime) -> Path:
    return run_steps(road.until("ingest"), store, runtime)[road.step("ingest").label].path


def test_a_run_asks_a_hub_once_and_a_reused_one_once_more(hub: Hub, tmp_path: Path):
    for _ in range(2):
        hub.asked.clear()
        made = _ingest(*_road(tmp_path, dataset=["hf::org/set"], remove_unused_columns=False))
        assert [line for line in hub.asked if "/api/" in line] == ["GET /api/datasets/org/set"]
    report = json.loads((made / "report.json").read_text())
    assert report["provenance"]["hf::org/set/chat/train-0.jsonl"]["revision"] == COMMIT
    assert report["sources"][0]["rows"] == 2


def test_a_file_that_registers_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(REGISTERING)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    road, store, runtime = _road(tmp_path, dataset=["mine"], custom_register_path=["mine.py"])
    made = _ingest(road, store, runtime)
    assert (tmp_path / "ran.txt").read_text() == "ran\n"
    record = json.loads((made / "record.json").read_text())
    (registered,) = record["config"]["registered"]
    assert registered["preprocess"][0] == "shouted"
    first = record["fingerprint"]
    (tmp_path / "mine.py").write_text(REGISTERING.replace("upper", "title"))
    again = _ingest(*_road(tmp_path, dataset=["mine"], custom_register_path=["mine.py"]))
    assert json.loads((again / "record.json").read_text())["fingerprint"] != first


def test_a_source_that_goes_away_before_the_run_is_bad_data(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "a", "response": "b"}\n')
    road, store, runtime = _road(tmp_path, dataset=[str(rows)])
    rows.unlink()
    with pytest.raises(DataError, match="gone"):
        _ingest(road, store, runtime)
