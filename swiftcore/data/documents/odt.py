"""Reader of ODT: the archive's content.xml, walked with lxml.

odfpy would build a tree of Python objects for the same file, several times slower and larger, with
a parser that can't be told to leave entities alone; so it is not used.
"""

from collections.abc import Iterator
from typing import Any

from swiftcore.data.documents.archives import checked_archive
from swiftcore.data.documents.outcomes import DocumentRefused, ExtractionLimits, Reading
from swiftcore.data.documents.safe_xml import parse_xml

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_PARAGRAPHS = (f"{_TEXT}p", f"{_TEXT}h")
# The number of a note and text that was deleted under change tracking.
_SKIPPED = (f"{_TEXT}note-citation", f"{_TEXT}tracked-changes")
_MAX_SPACES = 1000


def read_odt(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return paragraphs, headings, lists, tables, notes and comments in document order.

    Raises:
        DocumentRefused: it is encrypted, or has no content.xml.
    """
    archive = checked_archive(raw, limits)
    names = archive.namelist()
    if "META-INF/manifest.xml" in names and b"encryption-data" in archive.read(
        "META-INF/manifest.xml"
    ):
        raise DocumentRefused("encrypted: it opens only with a password")
    if "content.xml" not in names:
        raise DocumentRefused("the archive has no content.xml, so it is no ODT")
    body = parse_xml(archive.read("content.xml")).find(f"{_OFFICE}body")
    return Reading([("", "" if body is None else "\n".join(_blocks(body)))])


def _blocks(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag in _PARAGRAPHS:
            text = "".join(_inline(child))
            if text.strip():
                yield text
        elif child.tag == f"{_TABLE}table-row":
            cells = (" ".join(" ".join(_blocks(cell)).split()) for cell in child)
            line = " | ".join(cells).rstrip(" |")
            if line:
                yield line
        elif child.tag not in _SKIPPED:
            yield from _blocks(child)


def _inline(element: Any) -> Iterator[str]:
    if isinstance(element.tag, str):
        yield element.text or ""
    for child in element:
        if child.tag == f"{_TEXT}s":
            count = child.get(f"{_TEXT}c") or "1"
            yield " " * min(int(count) if count.isascii() and count.isdigit() else 1, _MAX_SPACES)
        elif child.tag == f"{_TEXT}tab":
            yield "\t"
        elif child.tag == f"{_TEXT}line-break":
            yield "\n"
        elif child.tag in (f"{_TEXT}note", f"{_OFFICE}annotation"):
            yield f" [{' '.join(_blocks(child))}]"
        elif child.tag not in _SKIPPED:
            yield from _inline(child)
        yield child.tail or ""
