"""Reader of DOCX: python-docx opens the package, the text is walked here.

python-docx's own paragraphs leave out content controls, tracked insertions, text boxes, footnotes
and equations, so the XML is walked in document order instead. Deleted text stays out.
"""

import io
from collections.abc import Iterator
from typing import Any

from swiftcore.data.documents.archives import checked_archive
from swiftcore.data.documents.outcomes import ExtractionLimits, Reading

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_ALTERNATE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"
_SKIPPED = {f"{_W}{name}" for name in ("pPr", "rPr", "tblPr", "trPr", "tcPr", "sectPr", "sdtPr")}
_SKIPPED |= {f"{_W}{name}" for name in ("del", "moveFrom", "instrText", "delText")}
_SIGNS = {f"{_W}tab": "\t", f"{_W}ptab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n"}
_SIGNS |= {f"{_W}noBreakHyphen": "-"}
_CONTENT_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.{}+xml"
_BESIDE = ("header", "footer", "footnotes", "endnotes", "comments")


def read_docx(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return the body, with tables in their place, then headers, footers, notes and comments."""
    import docx
    from docx.oxml.parser import parse_xml

    checked_archive(raw, limits)
    document = docx.Document(io.BytesIO(raw))
    sections = [("", _joined(_blocks(document.element.body)))]
    package = document.part.package
    assert package is not None
    parts = sorted(package.iter_parts(), key=lambda part: str(part.partname))
    for name in _BESIDE:
        wanted = [part for part in parts if part.content_type == _CONTENT_TYPE.format(name)]
        texts = (_joined(_blocks(parse_xml(part.blob))) for part in wanted)
        # First, even and odd pages mostly repeat one header.
        text = "\n".join(dict.fromkeys(filter(None, texts)))
        if text:
            sections.append((name, text))
    return Reading(sections)


def _joined(blocks: Iterator[str]) -> str:
    return "\n".join(block for block in blocks if block.strip())


def _blocks(element: Any) -> Iterator[str]:
    for child in _children(element):
        if child.tag == f"{_W}p":
            yield "".join(_runs(child))
        elif child.tag == f"{_W}tbl":
            yield _joined(_table_rows(child))
        else:
            yield from _blocks(child)


def _runs(element: Any) -> Iterator[str]:
    for child in _children(element):
        if child.tag in (f"{_W}t", f"{_MATH}t"):
            yield child.text or ""
        elif child.tag in _SIGNS:
            yield _SIGNS[child.tag]
        elif child.tag == f"{_W}txbxContent":
            yield "\n" + _joined(_blocks(child)) + "\n"
        else:
            yield from _runs(child)


def _table_rows(table: Any) -> Iterator[str]:
    for row in table.iter(f"{_W}tr"):
        # A table within a cell has rows of its own, which its cell brings.
        if next(row.iterancestors(f"{_W}tbl")) is not table:
            continue
        cells = [cell for cell in row.iter(f"{_W}tc") if next(cell.iterancestors(f"{_W}tr")) is row]
        texts = (" ".join(_joined(_blocks(cell)).split()) for cell in cells)
        yield " | ".join(texts).rstrip(" |")


def _children(element: Any) -> Iterator[Any]:
    for child in element:
        if child.tag == _ALTERNATE:
            # Choice and Fallback hold the same text twice, for newer and older programs.
            yield from list(child)[:1]
        elif child.tag not in _SKIPPED:
            yield child
