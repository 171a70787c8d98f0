"""Documents and source code named in a recipe: their chunks are rows like all others."""

import itertools
import json
from pathlib import Path

import pytest
from documents_making import docx_bytes, pdf_bytes

from swiftcore.artifacts import Store
from swiftcore.data import Pool, build_dataset, load_rows, row_origins
from swiftcore.errors import DataError, UsageError
from swiftcore.recipe import build_recipe
from swiftcore.recipe.sections import DataSection
from swiftcore.stages import build_road, run_steps

SHARED = Path(__file__).parents[2] / "shared" / "data"
CODE = '"""A module."""\n\n\ndef one():\n    return 1\n\n\ndef two():\n    return 2\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as teams have them: documents, code with tests, data, and what nobody reads."""
    root = tmp_path_factory.mktemp("papers") / "docs"
    (root / "src/test").mkdir(parents=True)
    (root / "node_modules").mkdir()
    (root / "guide.pdf").write_bytes(pdf_bytes("first page", "second page"))
    (root / "secret.pdf").write_bytes(pdf_bytes("hidden", password="x"))
    (root / "letter.docx").write_bytes(docx_bytes("Dear reader,", "all is well."))
    (root / "page.html").write_text("<html><body><p>A page about ships.</p></body></html>")
    (root / "notes.txt").write_text("one paragraph\n\nanother paragraph\n")
    (root / "src/code.py").write_text(CODE)
    (root / "src/test/test_code.py").write_text("assert True\n")
    (root / "tsconfig.json").write_text('{"a": 1, // a comment\n}\n')
    (root / "chat.jsonl").write_text('{"query": "Hi?", "response": "Hello!"}\n')
    (root / "node_modules/x.js").write_text("let x = 1;\n")
    (root / "picture.png").write_bytes(b"\x89PNG")
    return root


def _section(folder: Path, **values) -> DataSection:
    values = {"dataset": [str(folder)], "documents": {}, "max_quarantine_ratio": 0.5} | values
    return DataSection(**values)


def _texts(out: Path) -> list[str]:
    return sorted(str(row["messages"][-1]["content"]) for row in load_rows(out, "train"))


def test_a_folder_of_documents_becomes_rows_with_counts_that_add_up(folder, tmp_path):
    report = build_dataset(_section(folder), tmp_path / "out")
    assert _texts(tmp_path / "out") == sorted(
        [
            "first page\n\nsecond page",
            "Dear reader,\nall is well.",
            "A page about ships.",
            "one paragraph\n\nanother paragraph\n",
            CODE,
            "assert True\n",
            '{"a": 1, // a comment\n}\n',
            "Hello!",
        ]
    )
    assert (report.total("rows"), report.total("quarantined"), report.total("used")) == (9, 1, 8)
    (line,) = map(json.loads, (tmp_path / "out/quarantine.jsonl").read_text().splitlines())
    assert line["source"].endswith("docs/secret.pdf")
    assert "encrypted" in line["reason"]
    assert f"No reader for 1 files of {folder}: 1 .png." in report.notes
    origins = row_origins(tmp_path / "out", "train")
    assert f"{folder}/src/code.py:1" in origins


def test_any_number_of_processes_makes_the_same_bytes(folder, tmp_path):
    for name, pool in (("one", Pool(1)), ("two", Pool(2))):
        build_dataset(_section(folder, documents={"chunk_size": 20}), tmp_path / name, pool=pool)
    one, two = ((tmp_path / name / "train.parquet").read_bytes() for name in ("one", "two"))
    assert one == two
    assert max(map(len, _texts(tmp_path / "one"))) <= 20


def test_code_keeps_language_path_and_lines(folder, tmp_path):
    documents = {"format": "code", "chunk_size": 40}
    section = _section(folder / "src", documents=documents, remove_unused_columns=False)
    build_dataset(section, tmp_path / "out")
    rows = [row for row in load_rows(tmp_path / "out", "train") if row["path"] == "code.py"]
    assert [row["language"] for row in rows] == ["python"] * len(rows)
    rows.sort(key=lambda row: row["start_line"])
    assert "".join(row["messages"][0]["content"] for row in rows) == CODE
    assert (rows[0]["start_line"], rows[-1]["end_line"]) == (1, 9)


def test_chunks_overlap_in_characters_or_tokens(tmp_path):
    from tiny_model import build_tokenizer

    build_tokenizer().save_pretrained(tmp_path / "tokenizer")
    text = " ".join(f"word{n}" for n in range(60))
    (tmp_path / "long.md").write_text(text)
    for unit in (None, str(tmp_path / "tokenizer")):
        documents = {"chunk_size": 50, "chunk_overlap": 10, "tokenizer": unit}
        section = _section(tmp_path / "long.md", documents=documents, dataset_shuffle=False)
        build_dataset(section, tmp_path / "out")
        chunks = [row["messages"][0]["content"] for row in load_rows(tmp_path / "out", "train")]
        assert len(chunks) > 2
        assert all(a[-3:] in b[:14] for a, b in itertools.pairwise(chunks))
        assert text.startswith(chunks[0])
        assert text.endswith(chunks[-1])


def test_a_document_that_is_named_itself_needs_no_setting(folder, tmp_path):
    section = DataSection(dataset=[str(folder / "guide.pdf")])
    assert build_dataset(section, tmp_path / "out").files == [str(folder / "guide.pdf")]
    assert _texts(tmp_path / "out") == ["first page\n\nsecond page"]


def test_without_the_setting_a_folder_gives_its_data_alone(folder, tmp_path):
    section = DataSection(dataset=[str(folder / "chat.jsonl"), str(folder / "notes.txt")])
    assert build_dataset(section, tmp_path / "out").splits["train"] == 3
    (tmp_path / "only").mkdir()
    (tmp_path / "only/a.md").write_text("text")
    for entry in (tmp_path / "only", tmp_path / "only/*.md"):
        with pytest.raises(DataError) as caught:
            build_dataset(DataSection(dataset=[str(entry)]), tmp_path / "out")
        assert "documents: {}" in (caught.value.do or "")
    section = _section(tmp_path / "only/*.md")
    assert build_dataset(section, tmp_path / "out").splits["train"] == 1


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"dataset": ["chat.jsonl"]}, "data.documents"),
        ({"documents": {"chunk_size": 5, "chunk_overlap": 5}}, None),
        ({"documents": {"format": "code"}}, "data.documents.format"),
        ({"documents": {"tokenizer": "none"}}, None),
    ],
)
def test_settings_that_mean_nothing_are_usage_errors(folder, tmp_path, values, where):
    values = {"dataset": ["guide.pdf"]} | values
    values["dataset"] = [str(folder / name) for name in values["dataset"]]
    with pytest.raises(UsageError) as caught:
        build_dataset(_section(folder, **values), tmp_path / "out")
    assert where is None or where in (caught.value.where or "")


def test_a_folder_where_every_document_is_refused_is_bad_data(tmp_path):
    (tmp_path / "secret.pdf").write_bytes(pdf_bytes("hidden", password="x"))
    (tmp_path / "blank.md").write_text(" \n")
    with pytest.raises(DataError, match="all 2 rows are bad") as caught:
        build_dataset(_section(tmp_path), tmp_path / "out")
    assert "holds no text" in (caught.value.found or "")


def test_the_stage_knows_documents_by_content_and_name(folder, tmp_path):
    def made(root: Path) -> str:
        data = {"dataset": [str(root)], "documents": {}, "max_quarantine_ratio": 0.5}
        values = {"name": "docs", "model": {"scratch": {"vocab_size": 300}}, "data": data}
        values["runtime"] = {"store": str(tmp_path / "store"), "dataset_num_proc": 1}
        loaded = build_recipe(values, path=tmp_path / "recipe.yaml")
        road, store = build_road(loaded, Store(loaded.runtime.store)), Store(loaded.runtime.store)
        found = run_steps(road.until("ingest"), store, loaded.runtime)
        return found["docs/ingest"].fingerprint

    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("x.py" if name < "c" else "x.md")).write_text(CODE)
    assert made(tmp_path / "a") == made(tmp_path / "b")
    assert made(tmp_path / "a") != made(tmp_path / "c")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the documents in ../shared/data are not here")
def test_the_shared_documents_are_rows_or_refused_by_name(tmp_path):
    section = _section(SHARED / "docs", documents={"chunk_size": 4000}, max_quarantine_ratio=0.9)
    report = build_dataset(section, tmp_path / "out", pool=Pool(2))
    (source,) = report.sources
    assert source.used > 50
    assert source.quarantined + source.duplicates + source.used == source.rows
