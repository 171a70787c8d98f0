"""Readers of what is text already: plain text, markup that is read as it is, source code."""

from swiftcore.data.documents.decoding import decode_text
from swiftcore.data.documents.outcomes import ExtractionLimits, Reading


def read_plain(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return text as it stands in the file."""
    text, encoding = decode_text(raw)
    notes = [] if encoding == "utf-8" else [f"decoded as {encoding}"]
    return Reading([("", text)], notes)
