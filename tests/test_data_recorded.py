"""The recorded behaviour of ms-swift, case by case, where the shared folder is there."""

import json
from pathlib import Path

import pytest

from swiftcore.data import normalize_rows, parse_dataset_spec, sample_indices
from swiftcore.errors import SwiftError

RECORDS = Path(__file__).parents[2] / "shared" / "reference" / "golden_examples"

pytestmark = pytest.mark.skipif(
    not RECORDS.is_dir(), reason="the recorded cases in ../shared/reference are not here"
)


def _cases(name: str) -> list[dict]:
    path = RECORDS / name
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", _cases("formats.jsonl"), ids=lambda case: case["id"])
def test_row_formats(case):
    unused = case["remove_unused_columns"]
    rows, quarantine = normalize_rows(case["rows"], remove_unused_columns=unused)
    # Where ms-swift fails because no row is left, every row is quarantined here.
    assert _without_nulls(rows) == _without_nulls(case.get("expected", []))
    assert len(rows) + len(quarantine) == len(case["rows"])


@pytest.mark.parametrize("case", _cases("dataset_syntax.jsonl"), ids=lambda case: case["id"])
def test_dataset_syntax(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("plain.jsonl", "with:colon.jsonl", "with#hash.jsonl"):
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "folder").mkdir()
    if "expected_error" in case:
        with pytest.raises(SwiftError):
            parse_dataset_spec(case["input"])
        return
    spec, expected = parse_dataset_spec(case["input"]), case["expected"]
    assert (spec.path, spec.subsets, spec.sample) == (
        expected["dataset"],
        expected["subsets"],
        expected["sample"],
    )
    assert spec.hub == {True: "hf", False: "ms", None: None}[expected["use_hf"]]
    assert spec.is_local == (expected["kind"] == "path")


@pytest.mark.parametrize(
    "case",
    [case for case in _cases("dataset_sampling.jsonl") if not case.get("streaming")],
    ids=lambda case: case["id"],
)
def test_sampling(case):
    arguments = (case["rows"], case["sample"], case["split_dataset_ratio"], case["shuffle"])
    if "expected_error" in case:
        with pytest.raises(SwiftError):
            sample_indices(*arguments, seed=case["seed"])
        return
    train, val = sample_indices(*arguments, seed=case["seed"])
    recorded_train = case["expected"]["train"] or []
    recorded_val = case["expected"]["val"] or []
    if case["exact_order_is_contract"]:
        assert (train, val) == (recorded_train, recorded_val)
    assert (len(train), len(val)) == (len(recorded_train), len(recorded_val))
    assert len(set(val)) == len(val)
    assert not set(train) & set(val)
    copies, recorded_copies = _copies(train), _copies(recorded_train)
    assert copies == recorded_copies


def _copies(rows: list[int]) -> list[int]:
    return sorted(rows.count(row) for row in set(rows))
