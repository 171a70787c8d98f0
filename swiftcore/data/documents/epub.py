"""Reader of EPUB: an archive with a list of chapters in reading order, the spine."""

import html
import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from swiftcore.data.documents.archives import checked_archive
from swiftcore.data.documents.decoding import decode_text
from swiftcore.data.documents.html_pages import html_tree, visible_text
from swiftcore.data.documents.outcomes import DocumentRefused, ExtractionLimits, Reading
from swiftcore.data.documents.safe_xml import parse_xml

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_NAMED_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)[A-Za-z][A-Za-z0-9]{1,31};")


def read_epub(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return the chapters in the order of the spine.

    Raises:
        DocumentRefused: it names no chapters, or they are encrypted.
    """
    archive = checked_archive(raw, limits)
    package_name = _package_name(archive)
    package = parse_xml(_member(archive, package_name))
    chapters = list(_chapters(package, posixpath.dirname(package_name)))
    if not chapters:
        raise DocumentRefused("the EPUB names no chapters")
    locked = _encrypted_names(archive)
    sections: list[tuple[str, str]] = []
    notes: list[str] = []
    for name in chapters:
        if name in locked:
            raise DocumentRefused(f"encrypted: {name} opens only in a licensed reader")
        if name not in archive.namelist():
            notes.append(f"chapter {name} is not in the archive")
            continue
        text = visible_text(_tree(archive.read(name)))
        if text.strip():
            sections.append((name, text))
    return Reading(sections, notes)


def _package_name(archive: zipfile.ZipFile) -> str:
    container = parse_xml(_member(archive, _CONTAINER))
    found = next(iter(container.xpath("//*[local-name()='rootfile']/@full-path")), None)
    if found is None:
        raise DocumentRefused("the EPUB names no package document")
    return str(found)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError as err:
        raise DocumentRefused(f"the EPUB has no {name[:100]}") from err


def _chapters(package: Any, folder: str) -> Iterator[str]:
    hrefs = {item.get("id"): item.get("href") for item in package.xpath("//*[local-name()='item']")}
    for reference in package.xpath("//*[local-name()='spine']/*[local-name()='itemref']/@idref"):
        href = hrefs.get(str(reference))
        if href:
            # Names are only looked up among the members, so `..` reaches nothing else.
            yield posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))


def _encrypted_names(archive: zipfile.ZipFile) -> set[str]:
    if _ENCRYPTION not in archive.namelist():
        return set()
    root = parse_xml(archive.read(_ENCRYPTION))
    return {unquote(str(uri)) for uri in root.xpath("//*[local-name()='CipherReference']/@URI")}


def _tree(raw: bytes) -> Any:
    """Parse XHTML strictly, because HTML's rules let `<title/>` swallow the page; else as HTML."""
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

    text, _ = decode_text(raw)
    text = _NAMED_ENTITY.sub(lambda found: html.escape(html.unescape(found[0])), text)
    try:
        return parse_xml(re.sub(r"^\s*<\?xml[^>]*\?>", "", text).encode())
    except etree.XMLSyntaxError:
        return html_tree(text)
