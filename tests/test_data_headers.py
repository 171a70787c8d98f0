"""Tables without a header line: their columns are named, or the table is refused."""

import gzip
import json
from pathlib import Path

import pytest

from swiftcore.data import build_dataset, load_rows, read_rows
from swiftcore.data.documents import DatasetIngester, IngestionConfig
from swiftcore.data.readers.tables import TableHeader
from swiftcore.data.rows.plan import KNOWN_COLUMNS
from swiftcore.errors import DataError, SwiftError, UsageError
from swiftcore.recipe.sections import DataSection

SHARED = Path(__file__).parents[2] / "shared" / "data"
SCORED = "A plane takes off.,An air plane takes off.,5.0\nA man eats.,A man is eating.,3.8\n"


def _build(folder: Path, text: str, name: str = "rows.csv", **section):
    (folder / name).write_text(text, encoding="utf-8")
    section.setdefault("dataset", [str(folder / name)])
    return build_dataset(DataSection(**section), folder / "out")


def test_named_columns_take_the_first_line_as_a_row(tmp_path):
    report = _build(tmp_path, SCORED, column_names=["sentence1", "sentence2", "score"])
    assert report.total("rows") == report.total("used") == 2
    rows = load_rows(tmp_path / "out", "train")
    assert sorted(row["label"] for row in rows) == [3.8, 5.0]


def test_a_header_that_holds_exactly_the_names_is_a_header(tmp_path):
    text = "Query,Response\nHi?,Hello!\n"
    report = _build(tmp_path, text, column_names=["query", "response"])
    assert report.total("rows") == 1


def test_a_line_with_other_cells_than_names_costs_itself(tmp_path):
    text = "a,b\nc,d,e\nf,g\n"
    options = {"column_names": ["query", "response"], "max_quarantine_ratio": 0.5}
    assert _build(tmp_path, text, **options).total("quarantined") == 1
    (line,) = map(json.loads, (tmp_path / "out/quarantine.jsonl").read_text().splitlines())
    assert (line["line"], line["reason"]) == (2, "3 cells under 2 column names")


@pytest.mark.parametrize(
    "first",
    [
        "A plane takes off.,It flies.,five",
        "one,two,5.0",
        f"{'x' * 81},b,c",
        '"a\nb",c,d',
        "会飞。,b,c",
    ],
)
def test_a_first_line_that_is_a_row_is_refused_with_the_option(tmp_path, first):
    with pytest.raises(DataError, match="a row, and no header") as caught:
        _build(tmp_path, f"{first}\nd,e,f\n")
    assert "data.column_names" in (caught.value.do or "")
    assert (caught.value.where or "").endswith("rows.csv:1")


@pytest.mark.parametrize(
    ("first", "section"),
    [
        ("query,response,3.5", {}),  # a column that is known makes it a header
        ("1,2,3.5", {"columns": {"1": "query", "2": "response"}}),
        (",Question,Answer", {}),  # what pandas writes for its index
    ],
)
def test_a_first_line_with_a_known_name_stays_a_header(tmp_path, first, section):
    assert _build(tmp_path, f"{first}\n7,what?,it\n", **section).total("used") == 1


def test_a_first_line_that_may_be_a_header_fails_with_a_hint_when_nothing_can_be_read(tmp_path):
    with pytest.raises(DataError, match="all 1 rows are bad") as caught:
        _build(tmp_path, "World,Sports\nBusiness,Science\n")
    assert "data.column_names if there is no header line" in (caught.value.do or "")


def test_a_registered_dataset_names_columns_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scored.tsv").write_text(SCORED.replace(",", "\t"))
    names = ["sentence1", "sentence2", "score"]
    info = [{"name": "scored", "path": "scored.tsv", "column_names": names}]
    (tmp_path / "info.json").write_text(json.dumps(info))
    section = {"dataset": ["scored", "rows.csv"], "custom_dataset_info": ["info.json"]}
    report = _build(tmp_path, "query,response\na,b\n", **section)
    assert report.splits["train"] == 3


@pytest.mark.parametrize(
    ("names", "name"),
    [(["query", ""], "rows.csv"), (["query", "Query"], "rows.csv"), (["query"], "rows.jsonl")],
)
def test_names_that_name_nothing_are_a_usage_error(tmp_path, names, name):
    with pytest.raises(UsageError) as caught:
        _build(tmp_path, '{"query": "a", "response": "b"}\n', name, column_names=names)
    assert caught.value.where == "data.column_names"


def test_swift_dataset_names_columns_too(tmp_path):
    (tmp_path / "rows.csv").write_text("1,Hi there?,Hello!\n2,And now?,Bye!\n")
    options = {"input_paths": [tmp_path / "rows.csv"], "format": "sft_completion"}
    config = IngestionConfig(tmp_path / "a.jsonl", **options)
    with pytest.raises(DataError, match="no row came") as caught:
        DatasetIngester(config).run()
    assert "a row, and no header" in (caught.value.found or "")
    config = IngestionConfig(
        tmp_path / "a.jsonl", column_names=["id", "query", "response"], **options
    )
    assert DatasetIngester(config).run().rows == 2
    text = IngestionConfig(tmp_path / "b.jsonl", input_paths=[tmp_path / "rows.csv"])
    assert DatasetIngester(text).run().files[0].kind == "csv"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets in ../shared/data are not here")
@pytest.mark.parametrize(
    ("name", "names", "rows"),
    [
        ("ag_news_test_00000_04999.csv.gz", ["label", "query", "response"], 5000),
        ("stsb_multi/stsb-en-train.csv.gz", ["sentence1", "sentence2", "score"], 5749),
        ("stsb_multi/stsb-zh-dev.csv", ["sentence1", "sentence2", "score"], 1500),
    ],
)
def test_real_tables_without_a_header_are_read_whole(tmp_path, name, names, rows):
    path = SHARED / "nc" / name
    with pytest.raises(SwiftError, match="a row, and no header"):
        next(read_rows(path, header=TableHeader(known=KNOWN_COLUMNS)))
    report = build_dataset(DataSection(dataset=[str(path)], column_names=names), tmp_path / "out")
    assert report.total("rows") == rows
    assert report.total("used") + report.total("duplicates") == rows
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as stream:
        first = stream.readline()
    second = load_rows(tmp_path / "out", "train")
    assert any(str(row["messages"][0]["content"]) in first for row in second)
