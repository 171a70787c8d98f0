"""The encoded folder: what the template stage writes, drops, counts and refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from template_fixtures import QWEN2_5_LIKE, TOOLS, chat, small_tokenizer

from swiftcore.data import Pool
from swiftcore.data.columns import EncodedRow, column_kinds, encode_row, joined_kinds, to_table
from swiftcore.errors import DataError
from swiftcore.recipe.sections import TemplateSection
from swiftcore.template import encode_dataset, get_template, load_encoded, load_template

CALL = {"role": "tool_call", "content": '{"name": "get_weather", "arguments": {"city": "Paris"}}'}
ROWS = [
    {"messages": chat("one", "two")},
    {"messages": chat("<b>&amp;</b> <|im_end|>", "<script>alert(1)</script>", "x", "y")},
    {"messages": chat("a long question " * 30, "a long answer " * 30)},
    {"messages": [*chat("w"), CALL], "tools": json.dumps(TOOLS)},
    {"messages": chat("only a question")},
    {"messages": [*chat("a"), *chat("b")]},
]
FILES = {
    "train.parquet",
    "val.parquet",
    "drops.jsonl",
    "parity.json",
    "swift_template.json",
    "report.json",
    "card.html",
}


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "dataset", train=ROWS, val=ROWS[:2])


def write_dataset(folder: Path, rows_a_group: int = 4096, **splits: list[dict]) -> Path:
    folder.mkdir()
    for split, rows in splits.items():
        encoded = [encode_row(row, 0, line) for line, row in enumerate(rows, start=1)]
        table = to_table(encoded, joined_kinds([column_kinds(encoded)]))
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=rows_a_group)
    return folder


def encode(dataset: Path, out: Path, method="sft", **options):
    # The small model's own template can't write tools, and the rows have some.
    waived = {"parity_waivers": ["prompt", "conversation"]}
    return encode_dataset(
        TemplateSection(**waived | options),
        dataset,
        small_tokenizer(QWEN2_5_LIKE),
        out,
        method=method,
        model_type="qwen3",
        max_model_length=2048,
    )


def test_kept_rows_and_drops_add_up(dataset, tmp_path):
    out = tmp_path / "out"
    report = encode(dataset, out, max_length=200)
    assert {path.name for path in out.iterdir()} == FILES
    rows = load_encoded(out, "train")
    drops = [json.loads(line) for line in (out / "drops.jsonl").read_text().splitlines()]
    assert {row["row"] for row in rows} == {0, 1}
    assert {drop["row"]: drop["reason"] for drop in drops} == {
        2: "longer than max_length",
        3: "longer than max_length",
        4: "no token counts in the loss",
        5: "two user messages in a row",
    }
    assert drops[0]["tokens"] > 200
    assert drops[-1]["where"] == "messages[1].role"
    written = json.loads((out / "report.json").read_text())
    train = written["splits"]["train"]
    assert train["rows"] == train["kept"] + sum(train["drops"].values()) == len(ROWS)
    assert train["tokens"] == sum(len(row["input_ids"]) for row in rows)
    metrics = report.metrics()
    assert metrics["train_dropped"] == 4
    assert metrics["control_tokens_as_text"] == 2
    assert metrics["parity_prompt_compared"] == 1  # the other row holds a control token
    assert metrics["parity_prompt_differing"] == 0


def test_a_max_length_below_every_prompt_is_one_error(dataset, tmp_path):
    with pytest.raises(DataError, match="no row of the train split is left") as caught:
        encode(dataset, tmp_path / "out", max_length=5)
    assert "longer than max_length" in caught.value.found
    assert "raise template.max_length" in caught.value.do
    assert caught.value.exit_code == 3


def test_rows_equal_what_the_template_encodes_alone(dataset, tmp_path):
    report = encode(dataset, tmp_path / "out", loss_scale="hermes")
    rows = load_encoded(tmp_path / "out", "train")
    template = load_template(tmp_path / "out", small_tokenizer())
    assert report.settings == template.settings
    assert template.name == "qwen2_5"
    assert template.options.max_length == 2048
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        alone = template.encode(ROWS[row["row"]])
        assert row["input_ids"] == alone.input_ids
        assert row["labels"] == alone.labels
        assert row["loss_scale"] == alone.loss_scale
    assert rows[3]["loss_scale"] is not None
    assert rows[0]["loss_scale"] is None
    assert rows[-1] == rows[3]
    assert [row["row"] for row in rows[1:3]] == [1, 2]


def test_equal_input_gives_equal_bytes(dataset, tmp_path):
    for name in ("first", "second"):
        encode(dataset, tmp_path / name)
    for name in FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_pretraining_labels_everything(tmp_path):
    dataset = write_dataset(
        tmp_path / "d", train=[{"messages": [{"role": "assistant", "content": "some text"}]}]
    )
    report = encode(dataset, tmp_path / "out", method="pt")
    row = load_encoded(tmp_path / "out", "train")[0]
    assert row["labels"] == [-100, *row["input_ids"][1:]]
    assert report.settings["use_chat_template"] is False
    assert report.settings["loss_scale"] == "all"
    again = load_template(tmp_path / "out", small_tokenizer())
    assert again.encode({"messages": chat("abc")}, mode="infer").text == "abc"


def test_a_text_that_is_no_unicode_drops_its_row_only(tmp_path):
    rows = [{"messages": chat(question, "x")} for question in ("good", "\ud800", "good too")]
    # Ingest refuses a lone surrogate; escaped in JSON it can be stored all the same.
    encoded = [EncodedRow(row, {"messages": json.dumps(row["messages"])}, 0, 1) for row in rows]
    dataset = tmp_path / "d"
    dataset.mkdir()
    pq.write_table(to_table(encoded, {"messages": "json"}), dataset / "train.parquet")
    report = encode(dataset, tmp_path / "out")
    assert report.splits["train"].kept == 2
    assert report.splits["train"].drops == {"a text holds characters that are no valid Unicode": 1}


def test_no_row_left_says_why_and_what_to_do(dataset, tmp_path):
    with pytest.raises(DataError) as caught:
        encode(dataset, tmp_path / "out", max_length=3)
    assert "longer than max_length" in caught.value.found
    assert "max_length" in caught.value.do


def test_dataset_without_training_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="no training rows"):
        encode(write_dataset(tmp_path / "d", val=ROWS[:1]), tmp_path / "out")


def test_missing_and_damaged_encoded_rows_say_so(tmp_path):
    with pytest.raises(DataError, match="no encoded rows"):
        load_encoded(tmp_path, "train")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="can't be read"):
        load_encoded(tmp_path, "train")


def test_another_process_without_threads_writes_the_same_bytes(dataset, tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests')\n"
        "from test_template_dataset import encode\n"
        "encode(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(dataset), str(tmp_path / "serial")],
        check=True,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "7"},
        cwd=Path(__file__).parents[1],
    )
    encode(dataset, tmp_path / "parallel")
    for name in FILES:
        serial, parallel = tmp_path / "serial" / name, tmp_path / "parallel" / name
        assert serial.read_bytes() == parallel.read_bytes()


def test_last_answer_only_with_last_round(tmp_path):
    dataset = write_dataset(tmp_path / "d", train=[ROWS[1]])
    encode(dataset, tmp_path / "out", template="chatml", loss_scale="last_round")
    row = load_encoded(tmp_path / "out", "train")[0]
    labels = [label for label in row["labels"] if label != -100]
    assert small_tokenizer().decode(labels) == "y<|im_end|>\n"
    assert get_template("chatml", small_tokenizer(), loss_scale="last_round").encode(
        ROWS[1]
    ).num_labels == len(labels)


def test_several_processes_write_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("swiftcore.template.dataset._BYTES_WORTH_PROCESSES", 1)
    dataset = write_dataset(tmp_path / "dataset", rows_a_group=4, train=ROWS * 3)
    tokenizer = small_tokenizer(QWEN2_5_LIKE)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    digests = []
    for processes in (1, 2):
        out = tmp_path / f"encoded-{processes}"
        report = encode_dataset(
            TemplateSection(
                loss_scale="hermes",
                max_length=400,
                truncation_strategy="left",
                parity_waivers=["prompt", "conversation"],
            ),
            dataset,
            tokenizer,
            out,
            method="sft",
            model_type="qwen3",
            max_model_length=2048,
            tokenizer_dir=tmp_path / "tokenizer",
            pool=Pool(processes),
        )
        assert report.splits["train"].kept + sum(report.splits["train"].drops.values()) == 18
        assert report.control_tokens_as_text == 3
        digests.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert digests[0] == digests[1]
