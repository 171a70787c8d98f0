"""Reader of PDF, by pypdf."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from swiftcore.data.documents.outcomes import DocumentRefused, ExtractionLimits, Reading

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

_MAX_WARNINGS = 5
# Annotations that hold words of a reader; links and widgets hold none.
_REMARKS = {"/Text", "/FreeText", "/Highlight", "/Underline", "/StrikeOut", "/Squiggly", "/Caret"}


def read_pdf(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return the text of each page, its remarks, and the values of form fields.

    Raises:
        DocumentRefused: it is encrypted, or no page has a text layer.
    """
    from pypdf import PdfReader

    with _warnings_of("pypdf") as warnings:
        reader = PdfReader(io.BytesIO(raw), strict=False)
        notes = _unlock(reader)
        sections: list[tuple[str, str]] = []
        blank: list[str] = []
        for number, page in enumerate(reader.pages, start=1):
            text = _page_text(page, number, notes)
            if text.strip():
                sections.append((f"page {number}", text))
            else:
                blank.append(str(number))
        form = _form_text(reader)
    if form:
        sections.append(("form", form))
    if not sections:
        raise DocumentRefused(
            f"no text layer on any of {len(blank)} pages; run text recognition first"
        )
    if blank:
        notes.append(f"pages without text: {', '.join(blank)}")
    return Reading(sections, notes + list(dict.fromkeys(warnings))[:_MAX_WARNINGS])


def _unlock(reader: "PdfReader") -> list[str]:
    """Open a PDF that restricts its use but needs no password, as every viewer does."""
    if not reader.is_encrypted:
        return []
    if not reader.decrypt(""):
        raise DocumentRefused("encrypted: it opens only with a password")
    return ["the PDF restricts printing or copying; it opens without a password"]


def _page_text(page: "PageObject", number: int, notes: list[str]) -> str:
    try:
        lines = [page.extract_text(), *_remarks(page)]
    except (MemoryError, RecursionError):
        raise
    # Broken objects raise whatever the place they are met at raises: KeyError, TypeError, ...
    except Exception as err:
        notes.append(f"page {number} can't be read: {type(err).__name__}: {err}"[:300])
        return ""
    return "\n".join(line for line in lines if line)


def _remarks(page: "PageObject") -> Iterator[str]:
    for reference in page.annotations or []:
        remark = reference.get_object()
        words = remark.get("/Contents") if remark.get("/Subtype") in _REMARKS else None
        if isinstance(words, str) and words.strip():
            yield f"[{words.strip()}]"


def _form_text(reader: "PdfReader") -> str:
    fields = reader.get_form_text_fields() or {}
    return "\n".join(f"{name}: {value}" for name, value in fields.items() if value)


@contextmanager
def _warnings_of(name: str) -> Iterator[list[str]]:
    """Collect what a library logs: it is how pypdf says that it repaired or skipped something."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(f"{name}: {record.getMessage()}"[:300])
    logger = logging.getLogger(name)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
