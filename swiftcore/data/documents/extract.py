"""From the bytes of one document to its text, in this process.

Files of strangers are read in a process of their own: see `extractor`, which calls this there.
"""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from swiftcore.data.documents.code import code_breaks
from swiftcore.data.documents.epub import read_epub
from swiftcore.data.documents.html_pages import read_html
from swiftcore.data.documents.kinds import document_kind, is_source_code, no_reader
from swiftcore.data.documents.mail import read_eml
from swiftcore.data.documents.notebooks import read_notebook
from swiftcore.data.documents.odt import read_odt
from swiftcore.data.documents.outcomes import (
    DocumentPart,
    DocumentRefused,
    ExtractedDocument,
    ExtractionLimits,
    Reading,
)
from swiftcore.data.documents.pdf import read_pdf
from swiftcore.data.documents.plain import read_plain
from swiftcore.data.documents.rtf import read_rtf
from swiftcore.data.documents.sheets import read_xlsx
from swiftcore.data.documents.slides import read_pptx
from swiftcore.data.documents.word import read_docx

Reader = Callable[[bytes, ExtractionLimits], Reading]

_READERS: dict[str, Reader] = {
    "pdf": read_pdf,
    "docx": read_docx,
    "pptx": read_pptx,
    "xlsx": read_xlsx,
    "html": read_html,
    "epub": read_epub,
    "eml": read_eml,
    "rtf": read_rtf,
    "odt": read_odt,
    "notebook": read_notebook,
}
# What no UTF-8 file and no row may hold: NUL and halves of surrogate pairs.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_GAP = "\n\n"


def extract(path: Path, limits: ExtractionLimits) -> ExtractedDocument:
    """Read one document in this process.

    Raises:
        DocumentRefused: there is no reader, or the file holds no text; the message says why.
        Exception: whatever a library raises over a broken file.
    """
    kind = document_kind(path)
    if kind is None:
        raise DocumentRefused(no_reader(path))
    raw = read_bytes(path, limits.max_file_bytes)
    if not raw:
        raise DocumentRefused("the file is empty")
    reading = _READERS.get(kind, read_plain)(raw, limits)
    text, parts = _joined(reading.sections)
    text, num_replaced = _NO_TEXT.subn("\N{REPLACEMENT CHARACTER}", text)
    notes = list(reading.notes)
    if num_replaced:
        notes.append(f"{num_replaced} characters that are no text became U+FFFD")
    if not text.strip():
        raise DocumentRefused("the file holds no text")
    if len(text) > limits.max_text_characters:
        raise DocumentRefused(
            f"the text has {len(text):,} characters; {limits.max_text_characters:,} are allowed"
        )
    breaks = code_breaks(text, kind) if is_source_code(kind) else []
    return ExtractedDocument(path, kind, text, tuple(parts), tuple(breaks), tuple(notes))


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a regular file that nobody changes meanwhile.

    Raises:
        DocumentRefused: it can't be opened, is no regular file, is too large, or was changed.
    """
    try:
        # Without O_NONBLOCK the open of a named pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as err:
        raise DocumentRefused(f"can't be opened: {err.strerror or err}") from err
    with os.fdopen(descriptor, "rb") as stream:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise DocumentRefused("is no regular file")
        if before.st_size > max_bytes:
            raise DocumentRefused(f"has {before.st_size:,} bytes; {max_bytes:,} are allowed")
        # One byte more than there should be tells a file that grows; it is allocated at once.
        raw = stream.read(before.st_size + 1)
        after = os.fstat(descriptor)
    if len(raw) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise DocumentRefused("changed while it was read; run again when it is at rest")
    return raw


def _joined(sections: list[tuple[str, str]]) -> tuple[str, list[DocumentPart]]:
    texts: list[str] = []
    parts: list[DocumentPart] = []
    at = 0
    for name, text in sections:
        if name:
            parts.append(DocumentPart(name, at, at + len(text)))
        texts.append(text)
        at += len(text) + len(_GAP)
    return _GAP.join(texts), parts
