"""Folders, data files and hub datasets become one JSONL file with counts that add up."""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pypdf", reason="the documents extra is not installed")

from swiftcore.cli import dataset as command
from swiftcore.data import normalize_rows
from swiftcore.data.documents import (
    DatasetFormat,
    DatasetIngester,
    HuggingFaceSource,
    IngestionConfig,
    IngestionResult,
    ingest_dataset,
    pool,
)
from swiftcore.errors import DataError, EnvironmentMissing, UsageError
from tests.documents_making import docx_bytes, pdf_bytes, written
from tests.making import REPO

PAIR = {"instruction": "Say hi", "input": "to Ann", "output": "Hi Ann"}
CHAT = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def ingested(folder: Path, form: str = "pretraining", **options) -> tuple[list[dict], object]:
    out = folder / "out" / "rows.jsonl"
    result = ingest_dataset(folder / "in", out, format=form, num_workers=1, **options)
    return lines(out), result


def reasons(result: IngestionResult) -> dict[str, str]:
    return {file.name: file.reason for file in result.skipped}


def test_documents_become_texts(tmp_path):
    written(tmp_path, "in/a.txt", "plain text")
    written(tmp_path, "in/sub/b.docx", docx_bytes("from word"))
    written(tmp_path, "in/sub/c.pdf", pdf_bytes("from pdf"))
    rows, result = ingested(tmp_path)
    assert rows == [{"text": "plain text"}, {"text": "from word"}, {"text": "from pdf"}]
    assert (result.num_found, len(result.files), result.skipped) == (3, 3, [])
    assert [file.name for file in result.files] == ["in/a.txt", "in/sub/b.docx", "in/sub/c.pdf"]


def test_every_file_is_read_or_named_with_a_reason(tmp_path):
    inside = tmp_path / "in"
    written(tmp_path, "in/good.md", "good")
    written(tmp_path, "in/.hidden.md", "hidden")
    written(tmp_path, "in/.git/config", "hidden")
    written(tmp_path, "in/empty.txt", "")
    written(tmp_path, "in/noise.bin", b"\0\1")
    written(tmp_path, "in/mail.msg", b"\0\1")
    written(tmp_path, "outside.md", "outside")
    (inside / "leaving.md").symlink_to(tmp_path / "outside.md")
    (inside / "dead.md").symlink_to(tmp_path / "nowhere")
    (inside / "loop").symlink_to(inside)
    (inside / "again.md").symlink_to(inside / "good.md")
    os.mkfifo(inside / "pipe.txt")
    rows, result = ingested(tmp_path)
    assert rows == [{"text": "good"}]
    found = reasons(result)
    assert found["in/.git"] == found["in/.hidden.md"] == "hidden"
    assert found["in/empty.txt"] == "the file is empty"
    assert "no reader for this format: .bin" in found["in/noise.bin"]
    assert "save the message as .eml" in found["in/mail.msg"]
    assert found["in/leaving.md"] == "a link that leads out of the input folder"
    assert found["in/dead.md"] == "a link that leads nowhere"
    assert found["in/loop"] == "was met before as in"
    assert found["in/good.md"] == "was met before as in/again.md"
    assert found["in/pipe.txt"] == "is no regular file"
    assert result.num_found == len(result.files) + len(result.skipped) == 11


def test_report_has_each_file_and_counts_that_add_up(tmp_path):
    written(tmp_path, "in/a.txt", "same")
    written(tmp_path, "in/b.md", "same")
    written(tmp_path, "in/c.jsonl", jsonl({"text": "same"}, {"text": "new"}, PAIR, "rubbish", {}))
    rows, result = ingested(tmp_path)
    assert rows == [{"text": "same"}, {"text": "new"}]
    report = json.loads(result.report_path.read_text())
    expected = {"found": 3, "read": 3, "skipped": 0, "source_rows": 5, "rejected": 3}
    expected |= {"chunks": 4, "rows": 2, "duplicates": 2, "blank": 0}
    assert {name: report[name] for name in expected} == expected
    assert report["output_sha256"] == hashlib.sha256(result.output_path.read_bytes()).hexdigest()
    assert str(tmp_path) not in result.report_path.read_text()
    rejected = lines(result.quarantine_path)
    assert [(row["source"], row["line"]) for row in rejected] == [
        ("in/c.jsonl", 3),
        ("in/c.jsonl", 4),
        ("in/c.jsonl", 5),
    ]
    assert rejected[0]["reason"] == "is a conversation, not a text; use sft_messages"


def test_messages_come_from_conversations_and_never_from_texts(tmp_path):
    written(tmp_path, "in/doc.txt", "Just a text about something.")
    written(tmp_path, "in/rows.jsonl", jsonl(PAIR, CHAT, {"text": "raw"}, {"query": "only"}))
    rows, result = ingested(tmp_path, "sft_messages")
    assert rows == [
        {
            "messages": [
                {"role": "user", "content": "Say hi\nto Ann"},
                {"role": "assistant", "content": "Hi Ann"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "hello"},
            ]
        },
    ]
    refusal = "has no instruction and answer; use pretraining"
    assert reasons(result) == {"in/doc.txt": refusal}
    assert [row["reason"] for row in lines(result.quarantine_path)] == [
        refusal,
        "has no answer: user",
    ]


def test_only_documents_under_an_sft_format_is_an_error(tmp_path):
    written(tmp_path, "in/doc.txt", "Just a text about something.")
    with pytest.raises(DataError, match="no row came") as caught:
        ingested(tmp_path, "sft_completion")
    assert "in/doc.txt: has no instruction and answer; use pretraining" in str(caught.value)
    written(tmp_path, "in/doc.jsonl", jsonl({"query": "a"}, {"query": "b"}))
    with pytest.raises(DataError, match="no row came") as caught:
        ingested(tmp_path, "sft_completion")
    assert "2 rows: has no answer: user" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_completion_keeps_system_and_history(tmp_path):
    talk = [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    chat = {"messages": [{"role": role, "content": text} for role, text in talk]}
    tool = {"messages": [*chat["messages"], {"role": "tool_call", "content": "{}"}]}
    written(tmp_path, "in/rows.jsonl", jsonl(PAIR, chat, tool))
    rows, result = ingested(tmp_path, "sft_completion")
    assert rows == [
        {"prompt": "Say hi\nto Ann", "completion": "Hi Ann"},
        {"prompt": "c", "completion": "d", "system": "S", "history": [["a", "b"]]},
    ]
    assert "use sft_messages" in lines(result.quarantine_path)[0]["reason"]
    standard, quarantine = normalize_rows(rows)
    assert quarantine == []
    assert standard[1] == chat


def test_equal_conversations_in_two_spellings_are_duplicates(tmp_path):
    other = {"messages": [{"role": "user", "content": "hi"}]}
    other["messages"].append({"role": "assistant", "content": "hello"})
    written(tmp_path, "in/a.jsonl", jsonl(CHAT))
    written(tmp_path, "in/b.jsonl", jsonl(other))
    rows, result = ingested(tmp_path, "sft_messages")
    assert (len(rows), result.duplicates) == (1, 1)


def test_code_rows_name_language_path_and_lines(tmp_path):
    source = "import os\n\n\ndef a():\n    return 1\n\n\ndef b():\n    return 2\n"
    written(tmp_path, "in/mod.py", source)
    written(tmp_path, "in/README.md", "# About\n")
    rows, _ = ingested(tmp_path, "code", chunk_size=40)
    assert [(row["language"], row["path"]) for row in rows] == [
        ("markdown", "in/README.md"),
        ("python", "in/mod.py"),
        ("python", "in/mod.py"),
    ]
    assert "".join(row["text"] for row in rows[1:]) == source
    assert [(row["start_line"], row["end_line"]) for row in rows[1:]] == [(1, 7), (8, 9)]


def test_code_rows_of_data_files_keep_their_origin(tmp_path):
    row = {"content": "fn main() {}\n", "language": "Rust", "path": "src/main.rs"}
    written(tmp_path, "in/rows.jsonl", jsonl(row))
    rows, _ = ingested(tmp_path, "code")
    assert rows[0] | {"text": ""} == {
        "text": "",
        "language": "rust",
        "path": "src/main.rs",
        "start_line": 1,
        "end_line": 1,
    }


def test_tables_and_json_without_texts_are_documents(tmp_path):
    written(tmp_path, "in/cups.csv", "team,cups\nreds,3\n")
    written(tmp_path, "in/kanji.csv", "名前,年齢\n佐藤太郎,30\n".encode("cp932"))
    written(tmp_path, "in/setup.json", '{"a": [1, 2]}')
    written(tmp_path, "in/texts.csv", 'text\n"one"\n"two"\n')
    written(tmp_path, "in/torn.json", '[{"text": "one"}, {"text": ')
    rows, result = ingested(tmp_path)
    assert [row["text"] for row in rows] == [
        "team,cups\nreds,3\n",
        "名前,年齢\n佐藤太郎,30\n",
        '{"a": [1, 2]}',
        "one",
        "two",
    ]
    assert "not valid JSON" in reasons(result)["in/torn.json"]


def test_a_damaged_data_file_leaves_no_row_behind(tmp_path):
    noise = random.Random(1)
    good = ({"text": f"row {n} {noise.random()}"} for n in range(1000))
    whole = gzip.compress(jsonl(*good).encode())
    written(tmp_path, "in/a.jsonl", jsonl({"text": "before"}))
    written(tmp_path, "in/b.jsonl.gz", whole[: len(whole) // 2])
    written(tmp_path, "in/c.jsonl", jsonl({"text": "after"}, {}))
    rows, result = ingested(tmp_path)
    assert rows == [{"text": "before"}, {"text": "after"}]
    assert sum(result.rejected_reasons.values()) == 1
    assert "cut-off archive" in reasons(result)["in/b.jsonl.gz"]
    assert len(lines(result.quarantine_path)) == result.totals.rejected == 1


def test_same_bytes_again_and_the_output_is_never_an_input(tmp_path):
    for number in range(5):
        written(tmp_path, f"in/{number}.txt", f"text {number}\n\n" * 50)
    outputs = []
    for _ in range(2):
        out = tmp_path / "in" / "rows.jsonl"
        result = ingest_dataset(tmp_path / "in", out, chunk_size=100, chunk_overlap=20)
        outputs.append((out.read_bytes(), result.report_path.read_bytes()))
        assert result.rows > 5
    assert outputs[0][0] == outputs[1][0]
    assert b"is written by this run" in outputs[1][1]


def test_same_bytes_for_any_hash_seed(tmp_path):
    written(tmp_path, "in/a.docx", docx_bytes("one", "two"))
    written(tmp_path, "in/b.jsonl", jsonl({"text": "t", "x": 1, "y": 2, "z": 3}, PAIR))
    out = tmp_path / "o.jsonl"
    argv = ["dataset", "--input", str(tmp_path / "in"), "--output", str(out)]
    assert command.main(argv) == 0
    here = (out.read_bytes(), Path(f"{out}.report.json").read_bytes())
    script = f"from swiftcore.cli.dataset import main; main({argv!r})"
    environment = os.environ | {"PYTHONHASHSEED": "1"}  # this process has another
    subprocess.run([sys.executable, "-c", script], cwd=REPO, env=environment, check=True)
    assert (out.read_bytes(), Path(f"{out}.report.json").read_bytes()) == here


def test_chunk_sizes_hold_in_the_rows(tmp_path):
    written(tmp_path, "in/a.txt", "A sentence of some words. " * 100)
    rows, result = ingested(tmp_path, chunk_size=120)
    assert max(len(row["text"]) for row in rows) <= 120
    assert result.chunks == result.rows + result.duplicates
    whole, _ = ingested(tmp_path, chunk_size=0)
    assert [row["text"] for row in whole] == ["A sentence of some words. " * 100]


def test_an_earlier_output_survives_a_failure(tmp_path):
    written(tmp_path, "in/a.txt", "text")
    ingested(tmp_path)
    written(tmp_path, "in/a.txt", "")
    with pytest.raises(DataError):
        ingested(tmp_path)
    assert lines(tmp_path / "out" / "rows.jsonl") == [{"text": "text"}]
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_worker_killed_in_the_middle_costs_one_file(tmp_path, monkeypatch):
    for number in range(3):
        written(tmp_path, f"in/{number}.txt", f"text {number}")

    class Killing(pool.DocumentExtractor):
        def extract(self, path):
            if path.name == "1.txt":
                os.kill(self.worker_pid, signal.SIGSTOP)
                threading.Timer(0.2, os.kill, (self.worker_pid, signal.SIGKILL)).start()
            return super().extract(path)

    monkeypatch.setattr(pool, "DocumentExtractor", Killing)
    rows, result = ingested(tmp_path)
    assert rows == [{"text": "text 0"}, {"text": "text 2"}]
    assert "SIGKILL" in reasons(result)["in/1.txt"]


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    for number in range(12):
        written(tmp_path, f"in/{number}.md", f"text {number}\n" * (number * 400 + 1))
    written(tmp_path, "in/5.jsonl", jsonl({"text": "a row"}))
    outputs = set()
    for num_workers in (1, 3):
        config = IngestionConfig(tmp_path / "o.jsonl", (tmp_path / "in",), num_workers=num_workers)
        report = DatasetIngester(config).run().report_path
        outputs.add((config.output_path.read_bytes(), report.read_bytes()))
    assert len(outputs) == 1


def test_an_interrupted_run_leaves_no_process_and_no_file(tmp_path):
    for number in range(8):
        written(tmp_path, f"in/{number}.md", f"text {number}")
    config = IngestionConfig(tmp_path / "out/o.jsonl", (tmp_path / "in",), num_workers=2)

    class Interrupting:
        def update(self, done, total, text):
            if done == 3:
                raise KeyboardInterrupt

    children = psutil.Process().children
    with pytest.raises(KeyboardInterrupt):
        DatasetIngester(config).run(Interrupting())
    assert [one for one in children() if "documents.worker" in " ".join(one.cmdline())] == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_long_line_becomes_many_rows(tmp_path):
    written(tmp_path, "in/long.txt", "".join(f"{n} " for n in range(1_000_000)))
    rows, result = ingested(tmp_path, chunk_size=10_000)
    assert "".join(row["text"] for row in rows) == (tmp_path / "in/long.txt").read_text()
    assert result.rows == len(rows)


def hub(folder: Path, calls: list):
    """A hub layer that has fetched already."""

    def fetch(hub, dataset_id, *, revision, subset, offline):
        calls.append((hub, dataset_id, revision, subset, offline))
        return folder

    return fetch


def test_hub_dataset_by_split_and_number_of_samples(tmp_path):
    for name, number in {
        "train-0-part.jsonl": 3,
        "train-1-part.jsonl": 3,
        "test-0-part.jsonl": 2,
    }.items():
        rows = (PAIR | {"output": f"{name} {n}"} for n in range(number))
        written(tmp_path, f"hub/{name}", jsonl(*rows))
    written(tmp_path, "hub/README.md", "about")
    written(tmp_path, "in/a.jsonl", jsonl(CHAT))
    calls = []
    source = HuggingFaceSource("org/set", "main", max_samples=4, revision="abc", offline=True)
    config = IngestionConfig(
        tmp_path / "o.jsonl", (tmp_path / "in",), DatasetFormat.SFT_COMPLETION, hf_sources=(source,)
    )
    result = DatasetIngester(config, hub(tmp_path / "hub", calls)).run()
    assert calls == [("hf", "org/set", "abc", "main", True)]
    assert (result.rows, result.hf_rows) == (5, 4)
    assert [row["completion"] for row in lines(config.output_path)][3:] == [
        "train-0-part.jsonl 2",
        "train-1-part.jsonl 0",
    ]
    assert result.files[1].name == "hf::org/set:main/train-0-part.jsonl"


def test_hub_dataset_without_the_split(tmp_path):
    written(tmp_path, "hub/test-0-a.jsonl", jsonl(PAIR))
    source = HuggingFaceSource("org/set", split="validation")
    config = IngestionConfig(tmp_path / "o.jsonl", hf_sources=(source,), format="sft_messages")
    with pytest.raises(DataError, match="no such split") as caught:
        DatasetIngester(config, hub(tmp_path / "hub", [])).run()
    assert "test" in str(caught.value)


def test_hub_dataset_that_was_never_fetched_fails_at_once_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTCORE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EnvironmentMissing, match="offline"):
        ingest_dataset((), tmp_path / "o.jsonl", hf_dataset="org/set", hf_offline=True)


def test_hub_columns_are_named(tmp_path):
    written(tmp_path, "hub/train-0-a.jsonl", jsonl({"ask": "q", "say": "a"}))
    for columns in ({"ask": "query", "say": "response"}, {"nope": "query"}):
        source = HuggingFaceSource("org/set", columns=columns)
        config = IngestionConfig(
            tmp_path / "o.jsonl", hf_sources=(source,), format="sft_completion"
        )
        run = DatasetIngester(config, hub(tmp_path / "hub", [])).run
        if "ask" in columns:
            assert run().rows == 1
        else:
            with pytest.raises(UsageError, match="a column is renamed that no row has"):
                run()
    assert lines(tmp_path / "o.jsonl") == [{"prompt": "q", "completion": "a"}]


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp: IngestionConfig(tmp / "o.jsonl"),
        lambda tmp: IngestionConfig(tmp, (tmp,)),
        lambda tmp: IngestionConfig(tmp / "o", (tmp,), format="chatml"),
        lambda tmp: IngestionConfig(tmp / "o", (tmp,), chunk_size=10, chunk_overlap=10),
        lambda tmp: IngestionConfig(tmp / "o", (tmp,), num_workers=0),
        lambda tmp: HuggingFaceSource("./local/folder"),
        lambda tmp: HuggingFaceSource("org/set", max_samples=0),
        lambda tmp: DatasetIngester(IngestionConfig(tmp / "o", (tmp,), tokenizer=tmp)),
    ],
)
def test_wrong_configurations_are_refused(tmp_path, make):
    with pytest.raises(UsageError):
        make(tmp_path)


def test_missing_input_names_the_nearest(tmp_path):
    written(tmp_path, "documents/a.txt", "text")
    with pytest.raises(DataError, match="does not exist") as caught:
        ingest_dataset(tmp_path / "document", tmp_path / "o.jsonl")
    assert str(tmp_path / "documents") in str(caught.value)


def test_output_that_can_not_be_written(tmp_path):
    written(tmp_path, "in/a.txt", "text")
    with pytest.raises(EnvironmentMissing, match="can't be written"):
        ingest_dataset(tmp_path / "in", tmp_path / "in" / "a.txt" / "o.jsonl")


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "docs/a.md", "about\n")
    written(tmp_path, "src/a.py", "x = 1\n")
    argv = ["dataset", "--input", "./docs", "./src", "--output", "train.jsonl", "--format", "code"]
    assert command.main(argv) == 0
    assert "2 rows in train.jsonl" in capsys.readouterr().out
    assert [row["path"] for row in lines(tmp_path / "train.jsonl")] == ["docs/a.md", "src/a.py"]
    assert command.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2


@pytest.mark.parametrize(
    "flags",
    [
        "--output o.jsonl",
        "--input a.md",
        "--input a.md --output o.jsonl --format chatml",
        "--input a.md --output o.jsonl --hf-subset x",
        "--input a.md --output o.jsonl --hf-streaming",
        "--input a.md --output o.jsonl --max-seconds 0",
        "--input a.md --outp o.jsonl",
    ],
)
def test_command_refuses_what_has_no_meaning(flags):
    with pytest.raises(UsageError):
        command.main(["dataset", *flags.split()])


ROWS = st.lists(
    st.one_of(
        st.just(PAIR),
        st.just({"text": "x"}),
        st.dictionaries(st.sampled_from(["text", "query", "response", "messages"]), st.text()),
        st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=3),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.sampled_from(list(DatasetFormat)))
def test_counts_add_up_for_any_rows(tmp_path_factory, rows, form):
    folder = tmp_path_factory.mktemp("any")
    written(folder, "in/rows.jsonl", jsonl(*rows))
    try:
        out, result = ingested(folder, form, chunk_size=0)
    except DataError:
        return
    total = result.totals
    assert total.source_rows == len(rows) == total.chunks + total.rejected
    assert total.rows == len(out) == total.chunks - total.duplicates - total.blank
    if total.rejected:
        assert len(lines(result.quarantine_path)) == total.rejected
