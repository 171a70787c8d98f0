"""Documents of the real world, where the shared folder is there: each is read or refused."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("pypdf", reason="the documents extra is not installed")

from swiftcore.data.documents import (
    DocumentExtractor,
    ExtractedDocument,
    FailedDocument,
    ingest_dataset,
)

DOCS = Path(__file__).parents[2] / "shared" / "data" / "docs"

pytestmark = pytest.mark.skipif(
    not DOCS.is_dir(), reason="the documents in ../shared/data/docs are not here"
)
# Every file that has no text, by the start of its reason.
REFUSED = {
    "docx/tbl-having-tables.docx": "the file holds no text",
    "markitdown/random.bin": "no reader for this format",
    "markitdown/test_outlook_msg.msg": "no reader for this format",
    "pdf/005-libreoffice-writer-password__libreoffice-writer-password.pdf": "encrypted",
    "pdf/007-imagemagick-images__imagemagick-ASCII85Decode.pdf": "no text layer",
    "pdf/007-imagemagick-images__imagemagick-CCITTFaxDecode.pdf": "no text layer",
    "pdf/007-imagemagick-images__imagemagick-lzw.pdf": "no text layer",
    "pdf/023-cmyk-image__cmyk-image.pdf": "no text layer",
    "unstructured/empty.txt": "the file is empty",
    "unstructured/pdf__password.pdf": "encrypted",
}
# A few words that a person sees in documents without recorded ground truth.
WORDS = {
    "docx/blk-paras-and-tables.docx": "Donec Between",
    "docx/hdr-header-footer.docx": "Header Footer section",
    "markitdown/test.docx": "AutoGen Abstract",
    "markitdown/test.epub": "Chapter blockquote",
    "markitdown/test.pptx": "AutoGen Qingyun ColC",
    "markitdown/test.rtf": "Sample RTF",
    "markitdown/test.xlsx": "Alpha Delta",
    "markitdown/test_mskanji.csv": "年齢 大阪",
    "markitdown/test_notebook.ipynb": "Notebook markitdown",
    "unstructured/eml__fake-email.eml": "Test Roses Violets",
    "unstructured/fake-doc.rtf": "Heading Column",
    "unstructured/fake-text-utf-16.txt": "Important points",
    "unstructured/fake.odt": "Lorem Header Leader",
    "unstructured/fake_table.docx": "Header Col Lorem",
}


@pytest.fixture(scope="module")
def documents() -> dict[str, ExtractedDocument | FailedDocument]:
    paths = sorted(path for path in DOCS.rglob("*") if path.is_file())
    with DocumentExtractor() as extractor:
        return {path.relative_to(DOCS).as_posix(): extractor.extract(path) for path in paths}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def share_found(expected: str, document: object) -> float:
    assert isinstance(document, ExtractedDocument)
    wanted = words(expected)
    return len(wanted & words(document.text)) / len(wanted)


def test_every_document_is_read_or_refused_for_its_reason(documents):
    failed = {
        name: one.reason for name, one in documents.items() if isinstance(one, FailedDocument)
    }
    assert failed.keys() == REFUSED.keys()
    assert [name for name in failed if not failed[name].startswith(REFUSED[name])] == []


def test_pages_and_lengths_of_pdfs_are_as_recorded(documents):
    facts = json.loads((DOCS / "pdf_ground_truth.json").read_text())
    checked = 0
    for name, fact in facts.items():
        document = documents[name.removeprefix("docs/")]
        if fact["encrypted"]:
            assert isinstance(document, FailedDocument)
        elif fact["first_page_chars"] == 0:
            assert document.reason.startswith(f"no text layer on any of {fact['pages']} pages")
        else:
            pages = [part for part in document.parts if part.name.startswith("page ")]
            blank = sum(note.startswith("pages without text") for note in document.notes)
            assert len(pages) + blank == fact["pages"]
            remarks = re.findall(r"^\[.*\]$", document.text, re.MULTILINE)
            length = pages[0].end - pages[0].start - sum(len(one) + 1 for one in remarks)
            assert length == pytest.approx(fact["first_page_chars"], abs=2, rel=0.02)
            checked += 1
    assert checked == 17


def test_share_of_expected_words(documents):
    shares = {
        path.stem: share_found(path.read_text(), documents[f"markitdown/{path.stem}.pdf"])
        for path in sorted((DOCS / "markitdown" / "expected_outputs").glob("*.md"))
    }
    assert len(shares) == 2
    assert min(shares.values()) >= 0.95


@pytest.mark.parametrize("name", WORDS)
def test_words_a_person_reads(documents, name):
    assert share_found(WORDS[name], documents[name]) == 1


def test_scripts_of_a_page_are_never_text(documents):
    document = documents["unstructured/example-with-scripts.html"]
    assert isinstance(document, ExtractedDocument)
    assert "function(" not in document.text


@pytest.mark.parametrize("form", ["pretraining", "code"])
def test_the_whole_folder_ingests_with_counts_that_add_up(documents, tmp_path, form):
    result = ingest_dataset(DOCS, tmp_path / "o.jsonl", format=form)
    total = result.totals
    assert result.num_found == len(documents)
    assert len(result.skipped) == len(REFUSED)
    assert total.chunks == total.rows + total.duplicates + total.blank
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == total.rows
