"""Ingest as a whole: every source row accounted for, the same bytes again, bad days named."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from swiftcore.data import build_dataset, has_split, load_rows, row_origins
from swiftcore.errors import DataError, SwiftError, UsageError, from_dict
from swiftcore.recipe.sections import DataSection


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _qa(numbers: range | list[int]) -> list[dict]:
    return [{"question": f"q{n}", "answer": f"a{n}"} for n in numbers]


def _write(name: str, rows: list) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def _answers(split: str, out: str = "out") -> list[str]:
    return [row["messages"][-1]["content"] for row in load_rows(Path(out), split)]


def test_every_source_row_has_exactly_one_fate():
    _write("train.jsonl", [*_qa(range(50)), *_qa([0, 1]), '{"broken', {"foo": 1}, *_qa([60, 61])])
    _write("more.jsonl", _qa([3, 70, 71]))
    _write("val.jsonl", _qa([60, 80, 61]))
    _write("test.jsonl", _qa([61, 90]))
    section = DataSection(
        dataset=["train.jsonl#40", "more.jsonl#5"],
        val_dataset=["val.jsonl"],
        test_dataset=["test.jsonl"],
    )
    report = build_dataset(section, Path("out"))
    first, second, val, test = report.sources
    assert (first.rows, first.quarantined, first.duplicates, first.held_out) == (56, 2, 2, 2)
    assert (first.not_sampled, first.used, first.repeated) == (10, 40, 0)
    assert (second.rows, second.duplicates, second.used, second.repeated) == (3, 1, 2, 3)
    assert (val.rows, val.held_out, val.used) == (3, 1, 2)
    assert test.used == 2
    assert report.splits == {"train": 45, "val": 2, "test": 2}
    assert _answers("val") == ["a60", "a80"]
    assert _answers("test") == ["a61", "a90"]
    assert not set(_answers("train")) & {"a60", "a61", "a80", "a90"}
    written = json.loads(Path("out/report.json").read_text())
    assert written["splits"] == report.splits
    assert written["quarantine_reasons"] == report.quarantine_reasons
    card = Path("out/card.md").read_text()
    assert "| train.jsonl#40 | train | 56 | 2 | 2 | 2 | 10 | 40 | 0 |" in card


def test_counts_that_do_not_add_up_are_our_bug_and_raise():
    report = build_dataset(DataSection(dataset=[_write("a.jsonl", _qa(range(3)))]), Path("out"))
    report.sources[0].duplicates += 1
    with pytest.raises(SwiftError, match="do not add up") as caught:
        report.check()
    assert caught.value.exit_code == 1


def test_the_quarantine_names_place_and_reason_and_keeps_the_raw_row():
    rows = [*_qa(range(40)), '{"cut', {"messages": [{"role": "alien", "content": "é"}]}]
    build_dataset(DataSection(dataset=[_write("a.jsonl", rows)]), Path("out"))
    lines = Path("out/quarantine.jsonl").read_text().splitlines()
    cut, alien = (json.loads(line) for line in lines)
    assert (cut["source"], cut["line"], cut["row"]) == ("a.jsonl", 41, '{"cut')
    assert (alien["line"], alien["reason"]) == (42, "messages[1]: unknown role 'alien'")
    assert json.loads(alien["row"]) == rows[-1]


def test_the_same_bytes_make_the_same_parquet_in_another_folder_and_process(folder):
    rows = [*_qa(range(200)), {"query": "x", "response": "y", "label": 1}]
    rows += [{"messages": [{"role": "user", "content": "u"}], "tools": [{"b": 1, "a": 2}]}]
    section = DataSection(dataset=[_write("a.jsonl", rows)], split_dataset_ratio=0.1)
    build_dataset(section, Path("out"))
    (folder / "other").mkdir()
    (folder / "other" / "a.jsonl").write_bytes(Path("a.jsonl").read_bytes())
    script = (
        "from pathlib import Path; from swiftcore.data import build_dataset;"
        "from swiftcore.recipe.sections import DataSection;"
        "build_dataset(DataSection(dataset=['a.jsonl'], split_dataset_ratio=0.1), Path('out'))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=folder / "other", env=environment, check=True, timeout=120)
    for name in ("train.parquet", "val.parquet", "report.json", "card.md", "quarantine.jsonl"):
        assert (folder / "out" / name).read_bytes() == (folder / "other/out" / name).read_bytes()


def test_rows_come_back_as_they_were_with_keys_in_order_and_types():
    rows = [
        {
            "messages": [{"role": "user", "content": "é\u2028 \r\n"}],
            "tools": '[{"z": 1, "a": {"y": null}}]',
            "label": 1,
            "margin": 0.5,
            "channel": "c",
            "chat_template_kwargs": {"z": 1, "a": [1, None]},
        },
        {
            "messages": [{"role": "assistant", "content": "x", "loss": False}],
            "label": [1, 3],
            "margin": 1,
        },
        {"messages": [{"role": "user", "content": "y"}], "rejected_response": "n"},
    ]
    section = DataSection(dataset=[_write("a.jsonl", rows)], dataset_shuffle=False)
    build_dataset(section, Path("out"))
    loaded = load_rows(Path("out"), "train")
    assert loaded == rows
    assert list(loaded[0]["chat_template_kwargs"]) == ["z", "a"]
    assert [type(row.get("margin")) for row in loaded] == [float, int, type(None)]
    assert row_origins(Path("out"), "train") == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]


def test_any_parquet_tool_reads_messages_as_text():
    build_dataset(DataSection(dataset=[_write("a.jsonl", _qa([1]))]), Path("out"))
    table = pq.read_table("out/train.parquet").to_pydict()
    assert json.loads(table["messages"][0])[1] == {"role": "assistant", "content": "a1"}


def test_a_split_is_there_or_its_absence_is_said():
    build_dataset(DataSection(dataset=[_write("a.jsonl", _qa([1]))]), Path("out"))
    assert has_split(Path("out"), "train")
    assert not has_split(Path("out"), "val")
    with pytest.raises(DataError) as caught:
        load_rows(Path("out"), "val")
    assert caught.value.found == "train"


def test_a_validation_split_is_disjoint_even_when_copies_are_kept():
    _write("a.jsonl", _qa(range(20)) * 2)
    section = DataSection(dataset=["a.jsonl"], split_dataset_ratio=0.25, deduplicate=False)
    report = build_dataset(section, Path("out"))
    assert not set(_answers("train")) & set(_answers("val"))
    assert len(_answers("val")) == 10
    assert report.sources[0].held_out > 0
    assert report.sources[0].duplicates == 0


def test_training_order_is_shuffled_by_seed_and_kept_without_shuffle():
    _write("a.jsonl", _qa(range(30)))
    _write("b.jsonl", _qa(range(30, 60)))
    in_order = [f"a{n}" for n in range(60)]
    orders = []
    for out, options in (("x", {}), ("y", {"data_seed": 1}), ("z", {"dataset_shuffle": False})):
        build_dataset(DataSection(dataset=["a.jsonl", "b.jsonl"], **options), Path(out))
        orders.append(_answers("train", out))
    assert orders[2] == in_order
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(in_order)
    assert orders[0] != in_order


def test_every_row_bad_fails_with_the_first_reasons_and_keeps_the_quarantine():
    _write("a.jsonl", [{"foo": n} for n in range(30)] + ["{"])
    with pytest.raises(DataError) as caught:
        build_dataset(DataSection(dataset=["a.jsonl"]), Path("out"))
    assert caught.value.exit_code == 3
    assert "a.jsonl:1: no column holds a conversation" in (caught.value.found or "")
    assert "29 more" in (caught.value.found or "")
    assert "a.jsonl:31: not valid JSON" in (caught.value.found or "")
    assert len(Path("out/quarantine.jsonl").read_text().splitlines()) == 31
    assert not Path("out/train.parquet").exists()
    assert from_dict(caught.value.as_dict()).message == caught.value.message


def test_a_bad_source_fails_although_the_others_are_good():
    _write("good.jsonl", _qa(range(100)))
    _write("bad.jsonl", [{"foo": 1}])
    with pytest.raises(DataError, match="all 1 rows are bad"):
        build_dataset(DataSection(dataset=["good.jsonl", "bad.jsonl"]), Path("out"))


def test_the_share_of_bad_rows_decides_role_by_role():
    _write("train.jsonl", _qa(range(1000)))
    _write("test.jsonl", [*_qa(range(2000, 2009)), {"foo": 1}])
    section = DataSection(dataset=["train.jsonl"], test_dataset=["test.jsonl"])
    with pytest.raises(DataError, match="1 of 10 test rows"):
        build_dataset(section, Path("out"))
    allowed = section.model_copy(update={"max_quarantine_ratio": 0.1})
    assert build_dataset(allowed, Path("out2")).splits == {"train": 1000, "test": 9}


def test_strict_stops_at_the_first_bad_row():
    _write("a.jsonl", [*_qa(range(100)), {"foo": 1}])
    with pytest.raises(DataError) as caught:
        build_dataset(DataSection(dataset=["a.jsonl"], strict=True), Path("out"))
    assert caught.value.where == "a.jsonl:101"


def test_dirty_rows_are_quarantined_and_odd_but_valid_ones_kept():
    odd = [
        {"query": "<|im_end|> <|im_start|>system", "response": "ok"},
        {"query": "\u202eRTL \U0001f642", "response": "=1+1"},
        {"query": "", "response": "x"},
    ]
    dirty = [
        '{"query": "a\\u0000b", "response": "x"}',
        '{"query": "\\ud800", "response": "x"}',
        '{"messages": []}',
    ]
    _write("a.jsonl", [*_qa(range(97)), *odd, *dirty])
    report = build_dataset(DataSection(dataset=["a.jsonl"]), Path("out"))
    assert report.total("quarantined") == 3
    assert report.splits == {"train": 100}
    reasons = [
        json.loads(x)["reason"] for x in Path("out/quarantine.jsonl").read_text().splitlines()
    ]
    assert "NUL" in reasons[0]
    assert "surrogate" in reasons[1]


def test_an_empty_file_is_bad_data():
    Path("a.jsonl").touch()
    with pytest.raises(DataError, match="empty") as caught:
        build_dataset(DataSection(dataset=["a.jsonl"]), Path("out"))
    assert caught.value.where == "a.jsonl"


def test_a_renamed_column_that_no_row_has_is_a_usage_error():
    _write("a.jsonl", [{"ask": "q", "reply": "r"}] * 3)
    with pytest.raises(UsageError) as caught:
        build_dataset(
            DataSection(dataset=["a.jsonl"], columns={"ask": "query", "repyl": "response"}),
            Path("out"),
        )
    assert caught.value.found == "repyl"
    assert "reply" in (caught.value.expected or "")


def test_training_rows_that_are_all_evaluated_leave_nothing_to_train_on():
    _write("a.jsonl", _qa(range(5)))
    section = DataSection(dataset=["a.jsonl"], test_dataset=["a.jsonl"])
    with pytest.raises(DataError, match="no training row is left"):
        build_dataset(section, Path("out"))


def test_a_split_ratio_beside_validation_files_is_refused():
    _write("a.jsonl", _qa(range(5)))
    section = DataSection(dataset=["a.jsonl"], val_dataset=["a.jsonl"], split_dataset_ratio=0.1)
    with pytest.raises(UsageError, match="named twice"):
        build_dataset(section, Path("out"))


def test_a_split_that_is_impossible_names_its_entry():
    _write("a.jsonl", _qa(range(5)))
    with pytest.raises(UsageError) as caught:
        build_dataset(DataSection(dataset=["a.jsonl#1"], split_dataset_ratio=0.5), Path("out"))
    assert caught.value.where == "a.jsonl#1"


def test_the_report_notes_what_a_careful_reader_should_know():
    _write("a.jsonl", [{"problem": f"p{n}", "solution": "s", "answer": "a"} for n in range(3)])
    report = build_dataset(DataSection(dataset=["a.jsonl"]), Path("out"))
    assert any("solution, answer could each be the response" in note for note in report.notes)
    assert any("3 of 3 train rows hold a prompt without an answer" in x for x in report.notes)
    assert report.unused_columns == {"answer": 3, "solution": 3}


def test_progress_hears_how_far_the_reading_is():
    class Listener:
        def __init__(self) -> None:
            self.news: list[tuple[float, float | None]] = []

        def update(self, done: float, total: float | None, text: str) -> None:
            self.news.append((done, total))

    _write("a.jsonl", _qa(range(2500)))
    listener = Listener()
    build_dataset(DataSection(dataset=["a.jsonl"]), Path("out"), progress=listener)
    assert [done for done, total in listener.news if total is None] == [1000, 2000, 2500]
    assert listener.news[-1] == (2500, 2500)


SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data in ../shared/data is not here")
def test_real_gsm8k_rows_arrive_whole():
    source = SHARED / "math" / "gsm8k_train.jsonl.gz"
    section = DataSection(dataset=[str(source)], split_dataset_ratio=0.02)
    report = build_dataset(section, Path("out"))
    with gzip.open(source, "rt", encoding="utf-8") as stream:
        raw = [json.loads(line) for line in stream]
    assert report.total("rows") == len(raw) == sum(report.splits.values())
    assert sorted(_answers("train") + _answers("val")) == sorted(row["answer"] for row in raw)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data in ../shared/data is not here")
def test_real_tool_dialogues_keep_their_roles_and_tools():
    source = SHARED / "agent" / "llamafactory_glaive_toolcall_en_demo.json.gz"
    report = build_dataset(DataSection(dataset=[str(source)]), Path("out"))
    assert report.total("quarantined") == 0
    rows = load_rows(Path("out"), "train")
    roles = {message["role"] for row in rows for message in row["messages"]}
    assert roles == {"user", "assistant", "tool_call", "tool_response"}
    assert all(isinstance(json.loads(row["tools"]), list) for row in rows if "tools" in row)
