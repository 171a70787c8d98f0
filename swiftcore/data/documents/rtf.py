"""Reader of RTF, by striprtf."""

from swiftcore.data.documents.outcomes import DocumentRefused, ExtractionLimits, Reading


def read_rtf(raw: bytes, limits: ExtractionLimits) -> Reading:
    r"""Return the text of an RTF file.

    Raises:
        DocumentRefused: it does not begin with `{\rtf`.
    """
    from striprtf.striprtf import rtf_to_text

    if not raw.lstrip().startswith(b"{\\rtf"):
        raise DocumentRefused("does not begin with {\\rtf, so it is no RTF")
    # RTF is ASCII; other bytes are in the code page that its head names, of which latin-1 keeps
    # every byte.
    text = rtf_to_text(raw.decode("latin-1"), errors="replace")
    is_whole = raw.rstrip(b"\0 \t\r\n").endswith(b"}")
    return Reading([("", text)], [] if is_whole else ["the end of the file is missing"])
