"""Each kind of document gives its text, in the order a reader sees it."""

import json
from email.message import EmailMessage
from pathlib import Path

import pytest

pytest.importorskip("pypdf", reason="the documents extra is not installed")

from swiftcore.data.documents.extract import extract
from swiftcore.data.documents.extractor import DocumentExtractor
from swiftcore.data.documents.kinds import document_kind, languages, lexer_name, no_reader
from swiftcore.data.documents.outcomes import (
    DocumentRefused,
    ExtractedDocument,
    ExtractionLimits,
    FailedDocument,
)
from tests.documents_making import (
    docx_bytes,
    epub_bytes,
    odt_bytes,
    pdf_bytes,
    pptx_bytes,
    written,
    xlsx_bytes,
)


def text_of(folder: Path, name: str, content: str | bytes) -> str:
    return document_of(folder, name, content).text


def document_of(folder: Path, name: str, content: str | bytes) -> ExtractedDocument:
    return extract(written(folder, name, content), ExtractionLimits())


def reason_of(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(DocumentRefused) as caught:
        document_of(folder, name, content)
    return caught.value.message


def test_pdf_pages_in_order_and_pages_without_text_are_named(tmp_path):
    document = document_of(tmp_path, "a.pdf", pdf_bytes("first page", "", "third page"))
    assert document.text == "first page\n\nthird page"
    assert [part.name for part in document.parts] == ["page 1", "page 3"]
    third = document.parts[1]
    assert document.text[third.start : third.end] == "third page"
    assert "pages without text: 2" in document.notes


def test_pdf_without_text_layer_is_refused(tmp_path):
    assert "no text layer" in reason_of(tmp_path, "scan.pdf", pdf_bytes("", ""))


def test_encrypted_pdf_is_refused_with_the_reason(tmp_path):
    raw = pdf_bytes("secret", password="open sesame")
    assert reason_of(tmp_path, "a.pdf", raw) == "encrypted: it opens only with a password"


def test_docx_paragraphs_tables_and_headers(tmp_path):
    raw = docx_bytes("one", "two", table=[["a", "b"], ["c", "d"]], header="on each page")
    document = document_of(tmp_path, "a.docx", raw)
    assert document.text == "one\ntwo\na | b\nc | d\nafter the table\n\non each page"


def test_docx_keeps_what_its_library_leaves_out(tmp_path):
    import docx
    from docx.oxml.parser import parse_xml

    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    run = "<w:r><w:t>{}</w:t></w:r>"
    blocks = (
        f"<w:sdt {space}><w:sdtContent><w:p>{run.format('control')}</w:p></w:sdtContent></w:sdt>",
        f"<w:p {space}><w:ins>{run.format('inserted')}</w:ins>"
        f"<w:del>{run.format('deleted')}</w:del></w:p>",
        f"<w:p {space}><w:r><w:pict><w:txbxContent><w:p>{run.format('boxed')}</w:p>"
        "</w:txbxContent></w:pict></w:r></w:p>",
    )
    document = docx.Document()
    for block in reversed(blocks):
        document.element.body.insert(0, parse_xml(block))
    document.save(str(tmp_path / "a.docx"))
    text = extract(tmp_path / "a.docx", ExtractionLimits()).text
    assert text.split() == ["control", "inserted", "boxed"]


def test_pptx_slides_with_notes(tmp_path):
    raw = pptx_bytes(("Title", "body", "say this"), ("Second", "more", ""))
    document = document_of(tmp_path, "a.pptx", raw)
    assert document.text == "Title\nbody\nNotes: say this\n\nSecond\nmore"
    assert [part.name for part in document.parts] == ["slide 1", "slide 2"]


def test_xlsx_sheets_rows_and_formulas(tmp_path):
    sheets = {"Prices": [["item", "eur"], ["tea", 3], [None, "=B2*2"]], "Empty": [], "Two": [[1.5]]}
    document = document_of(tmp_path, "a.xlsx", xlsx_bytes(sheets))
    assert document.text == "Prices\nitem | eur\ntea | 3\n | =B2*2\n\nTwo\n1.5"


def test_html_never_gives_scripts(tmp_path):
    body = "<p>" + "A sentence that a reader sees. " * 30 + "</p>"
    page = (
        f"<html><head><style>p{{}}</style></head><body><script>var x</script>{body}</body></html>"
    )
    text = text_of(tmp_path, "a.html", page)
    assert "A sentence that a reader sees." in text
    assert "var x" not in text
    assert "p{}" not in text


def test_html_without_main_text_gives_all_visible_text(tmp_path, monkeypatch):
    monkeypatch.setattr("swiftcore.data.documents.html_pages.main_text", lambda page: "")
    page = "<body><nav>Home <b>now</b></nav><table><tr><td>a</td><td>b</td></tr></table></body>"
    document = document_of(tmp_path, "a.html", page + "<script>no()</script>")
    assert document.text.split("\n") == ["Home now", "", "a | b"]
    assert any("all visible text" in note for note in document.notes)


def test_html_keeps_a_page_that_looks_like_a_menu(tmp_path):
    cells = "".join(f"<li><a href='#'>Entry number {n}</a></li>" for n in range(200))
    text = text_of(tmp_path, "a.html", f"<body><nav><ul>{cells}</ul></nav></body>")
    assert text.startswith("Entry number 0")
    assert text.endswith("Entry number 199")


def test_html_in_the_charset_it_names(tmp_path):
    page = f'<meta charset="windows-1251"><p>{"Привет, мир. " * 20}</p>'.encode("cp1251")
    assert "Привет, мир." in text_of(tmp_path, "a.html", page)


def test_epub_follows_the_spine(tmp_path):
    chapters = {"b.xhtml": "<body><p>first&nbsp;one</p></body>", "a.xhtml": "<body>second</body>"}
    document = document_of(tmp_path, "a.epub", epub_bytes(chapters))
    assert document.text.split("\n\n") == ["first one", "second"]


def test_epub_names_a_chapter_that_is_not_there(tmp_path):
    raw = epub_bytes({"a.xhtml": "<body>text</body>"})
    raw = raw.replace(b"OPS/a.xhtml", b"OPS/z.xhtml")
    assert reason_of(tmp_path, "a.epub", raw) == "the file holds no text"


def test_eml_plain_text_before_html_and_attachments_named(tmp_path):
    message = EmailMessage()
    message["Subject"], message["From"] = "Grüße", "a@example.org"
    message.set_content("plain words\n")
    message.add_alternative("<p>html words</p>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="bill.pdf")
    document = document_of(tmp_path, "a.eml", message.as_bytes())
    assert document.text.startswith("Subject: Grüße\nFrom: a@example.org\n\nplain words")
    assert "html words" not in document.text
    assert "Attachments: bill.pdf" in document.text
    assert document.notes == ("attachments were not read: bill.pdf",)


def test_eml_of_html_alone(tmp_path):
    message = EmailMessage()
    message.set_content("<p>only html</p><script>no()</script>", subtype="html")
    assert text_of(tmp_path, "a.eml", message.as_bytes()) == "only html"


def test_eml_with_a_broken_header_is_read(tmp_path):
    raw = "From: =?utf-8?q?=?= <@>,;\nDate: no day\nSubject: a\n b\n\nwords\n"
    text = text_of(tmp_path, "a.eml", raw)
    assert text.startswith("Subject: a b\nFrom: ")
    assert text.endswith("words\n")


def test_rtf(tmp_path):
    head = rb"{\rtf1\ansi\ansicpg1252{\fonttbl\f0 Arial;}"
    raw = head + rb"\f0 Caf\'e9 \b bold\b0\par next}"  # codespell:ignore caf
    assert text_of(tmp_path, "a.rtf", raw).split() == ["Café", "bold", "next"]
    cut = document_of(tmp_path, "cut.rtf", raw[:-6])
    assert cut.notes == ("the end of the file is missing",)
    assert "no RTF" in reason_of(tmp_path, "no.rtf", "plain text")


def test_odt_in_document_order(tmp_path):
    body = (
        "<text:h>Title</text:h><text:p>two<text:s text:c='2'/>gaps<text:tab/>end<text:note>"
        "<text:note-citation>1</text:note-citation><text:note-body><text:p>why</text:p>"
        "</text:note-body></text:note></text:p><table:table><table:table-row><table:table-cell>"
        "<text:p>a</text:p></table:table-cell><table:table-cell><text:p>b</text:p>"
        "</table:table-cell></table:table-row></table:table>"
    )
    assert text_of(tmp_path, "a.odt", odt_bytes(body)) == "Title\ntwo  gaps\tend [why]\na | b"


def test_notebook_cells(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Head\n", "text"]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": "1"}]},
    ]
    raw = json.dumps({"cells": cells, "metadata": {"language_info": {"name": "julia"}}})
    assert text_of(tmp_path, "a.ipynb", raw) == "# Head\ntext\n\n```julia\nprint(1)\n```"
    assert "not valid JSON" in reason_of(tmp_path, "b.ipynb", raw[:40])


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("naïve — ünïcode 漢字", "utf-8"),
        ("naïve", "utf-8-sig"),
        ("wide text\nwith lines", "utf-16"),
        ("wide text\nwith lines", "utf-16-le"),
        ("wide text\nwith lines", "utf-32"),
        ("Größe: zwölf Boxkämpfer – “quoted” für 5 €", "cp1252"),
        ("Le café est déjà fermé, à bientôt l’été", "cp1252"),
        ("名前,年齢\n佐藤太郎,30\n三木英子,25\n", "cp932"),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю", "cp1251"),
    ],
)
def test_plain_text_in_any_encoding(tmp_path, text, encoding):
    document = document_of(tmp_path, "a.txt", text.encode(encoding))
    assert document.text == text
    assert bool(document.notes) == (encoding not in ("utf-8", "utf-8-sig"))


def test_text_is_kept_as_it_is(tmp_path):
    text = "a\r\n\r\n  b\t\n\n\n"
    for name in ("a.md", "a.rst", "a.org", "a.txt", "a.csv", "a.py"):
        assert text_of(tmp_path, name, text) == text


def test_about_sixty_languages_have_a_lexer():
    from pygments.lexers import get_lexer_by_name

    assert len(languages()) >= 40
    for language in languages():
        assert get_lexer_by_name(lexer_name(language))


def test_kinds_by_name():
    kinds = {"a.PDF": "pdf", "b/Makefile": "makefile", "c.tsx": "typescript", "LICENSE": "text"}
    assert {name: document_kind(Path(name)) for name in kinds} == kinds
    assert document_kind(Path("mail.msg")) is None
    assert document_kind(Path("noname")) is None
    reason = no_reader(Path("mail.msg"))
    assert "no reader for this format: .msg (save the message as .eml)" in reason
    assert "pdf, docx" in reason


def test_worker_gives_what_the_function_gives(tmp_path):
    path = written(tmp_path, "näme\n1.docx", docx_bytes("one", "two"))
    with DocumentExtractor() as extractor:
        assert extractor.extract(path) == extract(path, ExtractionLimits())
        unknown = extractor.extract(tmp_path / "a.bin")
    assert isinstance(unknown, FailedDocument)
    assert "no reader" in unknown.reason


def test_importing_the_data_package_brings_no_parser():
    from tests.test_layers import imported_by

    heavy = {"pypdf", "docx", "pptx", "openpyxl", "lxml", "trafilatura", "pygments", "striprtf"}
    assert not imported_by("swiftcore.data", "swiftcore.data.documents") & heavy
