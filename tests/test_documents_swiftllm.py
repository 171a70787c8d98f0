"""SwiftLLM's documented examples of dataset ingestion, against a hub of our own."""

import gzip
import io
import json
from pathlib import Path

import pytest

import swiftcore
from swiftcore.cli import dataset as command
from swiftcore.data.sources.hub import fetch_hub
from swiftcore.errors import DataError
from tests.stub_hub import Hub

SHARDS = 4
ROWS_A_SHARD = 50


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _jsonl(*rows: dict) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(*texts: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), stream)
    return stream.getvalue()


@pytest.fixture
def wide_hub(hub: Hub, tmp_path: Path) -> Hub:
    """A hub with the two datasets of the examples, in small, and the folders of the examples."""
    alpaca = [
        {"instruction": f"Add {n} and 1.", "input": "", "output": str(n + 1)} for n in range(30)
    ]
    hub.datasets["tatsu-lab/alpaca"] = {"data/train-00000.jsonl": _jsonl(*alpaca)}
    web: dict[str, bytes] = {}
    for shard in range(SHARDS):
        texts = [f"page {shard} {n}" for n in range(ROWS_A_SHARD)]
        web[f"sample/10BT/{shard:03}_00000.parquet"] = _parquet(*texts)
    web["sample/100BT/000.jsonl.gz"] = gzip.compress(_jsonl({"text": "elsewhere"}))
    card = "---\nconfigs:\n- config_name: default\n  data_files: [data/*]\n"
    card += "- config_name: sample-10BT\n  data_files: [sample/10BT/*]\n---\n"
    hub.datasets["HuggingFaceFW/fineweb"] = {"README.md": card.encode(), **web}
    for name, text in {"src/a.py": "x = 1\n", "docs/b.md": "# B\n", "my_docs/c.txt": "c\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return hub


def _run(arguments: str) -> int:
    return command.main(["dataset", *arguments.split()])


def test_local_files_for_code_fine_tuning(wide_hub):
    assert _run("--input ./src/ ./docs/ --output train.jsonl --format code") == 0
    assert [row["path"] for row in _lines(Path("train.jsonl"))] == ["src/a.py", "docs/b.md"]


def test_a_hub_dataset(wide_hub):
    arguments = "--hf-dataset tatsu-lab/alpaca --output alpaca.jsonl --format sft_completion"
    assert _run(arguments) == 0
    rows = _lines(Path("alpaca.jsonl"))
    assert (len(rows), rows[1]) == (30, {"prompt": "Add 1 and 1.", "completion": "2"})


def test_local_files_and_a_hub_dataset_combined(wide_hub):
    arguments = "--input ./my_docs/ --hf-dataset tatsu-lab/alpaca --hf-max-samples 10"
    assert _run(f"{arguments} --format sft_completion --output combined.jsonl") == 0
    assert len(_lines(Path("combined.jsonl"))) == 10
    report = json.loads(Path("combined.jsonl.report.json").read_text())
    assert [file["name"] for file in report["skipped_files"]] == ["my_docs/c.txt"]
    assert "use pretraining" in report["skipped_files"][0]["reason"]


STREAMED = "--hf-dataset HuggingFaceFW/fineweb --hf-subset sample-10BT --hf-streaming"
STREAMED += " --format pretraining --output fineweb.jsonl"


def _fetched(hub: Hub) -> list[str]:
    asked = [line.rpartition("/")[2] for line in hub.asked if line.startswith("GET /datasets")]
    return [name for name in asked if name != "README.md"]


def test_streaming_fetches_no_file_after_the_last_row(wide_hub):
    assert _run(f"{STREAMED} --hf-max-samples 70") == 0
    rows = _lines(Path("fineweb.jsonl"))
    assert rows == [{"text": f"page {n // 50} {n % 50}"} for n in range(70)]
    assert _fetched(wide_hub) == ["000_00000.parquet", "001_00000.parquet"]
    (source,) = json.loads(Path("fineweb.jsonl.report.json").read_text())["hf_sources"]
    assert (source["files"], source["revision"]) == ("2 of 4", wide_hub.commit)


def test_what_was_streamed_is_not_fetched_again(wide_hub):
    assert _run(f"{STREAMED} --hf-max-samples 50") == 0
    wide_hub.asked.clear()
    assert _run(f"{STREAMED} --hf-max-samples 51") == 0
    assert _fetched(wide_hub) == ["001_00000.parquet"]
    wide_hub.asked.clear()
    folder = fetch_hub("hf", "HuggingFaceFW/fineweb", subset="sample-10BT")
    assert len(list(folder.iterdir())) == SHARDS
    assert _fetched(wide_hub) == ["002_00000.parquet", "003_00000.parquet"]
    wide_hub.asked.clear()
    assert _run(STREAMED) == 0
    assert len(_lines(Path("fineweb.jsonl"))) == SHARDS * ROWS_A_SHARD
    assert _fetched(wide_hub) == []
    assert _run(f"{STREAMED} --hf-offline") == 0


def test_a_streamed_file_is_checked_like_any_other(wide_hub):
    wide_hub.altered = {"sample/10BT/001_00000.parquet"}
    assert _run(f"{STREAMED} --hf-max-samples 50") == 0
    with pytest.raises(DataError, match="not the one the hub lists"):
        _run(f"{STREAMED} --hf-max-samples 51")
    assert len(_lines(Path("fineweb.jsonl"))) == 50  # as it was


def test_streaming_works_on_the_other_hub_too(wide_hub):
    assert _run(f"{STREAMED} --hf-hub ms --hf-max-samples 3") == 0
    (source,) = json.loads(Path("fineweb.jsonl.report.json").read_text())["hf_sources"]
    assert (source["hub"], source["files"]) == ("ms", "1 of 4")


def test_the_documented_python_names_do_what_they_say(wide_hub, tmp_path):
    source = swiftcore.HuggingFaceSource("tatsu-lab/alpaca", max_samples=5)
    config = swiftcore.IngestionConfig(
        input_paths=[tmp_path / "my_docs"],
        output_path=tmp_path / "out.jsonl",
        format=swiftcore.DatasetFormat.SFT_MESSAGES,
        chunk_size=512,
        hf_sources=[source],
    )
    result = swiftcore.DatasetIngester(config).run()
    assert isinstance(result, swiftcore.IngestionResult)
    assert (result.chunks, len(result.files), result.hf_rows) == (5, 1, 5)
    assert [file.name for file in result.skipped] == ["my_docs/c.txt"]
    assert [form.value for form in swiftcore.DatasetFormat] == [
        *("pretraining", "sft_messages", "sft_completion", "code")
    ]


@pytest.mark.parametrize("function", [swiftcore.ingest_dataset, swiftcore.prepare_dataset])
def test_one_call_ingests_local_files_a_hub_dataset_or_both(wide_hub, tmp_path, function):
    out = tmp_path / "one.jsonl"
    assert function("my_docs", out).rows == 1
    options = {"hf_dataset": "tatsu-lab/alpaca", "hf_max_samples": 4, "hf_streaming": True}
    assert function(output_path=out, format="sft_completion", **options).rows == 4
    both = function(["my_docs"], out, format="sft_completion", **options)
    assert (both.rows, both.hf_rows, len(both.skipped)) == (4, 4, 1)


SCHEMAS = {
    "Alpaca": {"instruction": "Do it.", "input": "", "output": "Done."},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "Do it."}, {"from": "gpt", "value": "Done."}]
    },
    "OpenAI messages": {
        "messages": [
            {"role": "user", "content": "Do it."},
            {"role": "assistant", "content": "Done."},
        ]
    },
    "prompt/completion": {"prompt": "Do it.", "completion": "Done."},
    "Q&A": {"question": "Do it.", "answer": "Done."},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_of_hub_datasets_are_found_out(wide_hub, tmp_path, name):
    wide_hub.datasets["org/chat"] = {"train.jsonl": _jsonl(SCHEMAS[name])}
    out = tmp_path / "out.jsonl"
    assert _run(f"--hf-dataset org/chat --output {out} --format sft_completion") == 0
    assert _lines(out) == [{"prompt": "Do it.", "completion": "Done."}]
    assert _run(f"--hf-dataset org/chat --output {out} --format sft_messages") == 0
    assert _lines(out) == [SCHEMAS["OpenAI messages"]]


def test_plain_text_of_a_hub_is_found_out_and_duplicates_count_over_all_sources(wide_hub, tmp_path):
    wide_hub.datasets["org/text"] = {"train.jsonl": _jsonl({"text": "c\n"}, {"text": "d"})}
    out = tmp_path / "out.jsonl"
    assert _run(f"--input my_docs --hf-dataset org/text --output {out}") == 0
    report = json.loads((tmp_path / "out.jsonl.report.json").read_text())
    assert (_lines(out), report["duplicates"]) == ([{"text": "c\n"}, {"text": "d"}], 1)
