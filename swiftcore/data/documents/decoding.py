"""Bytes of unknown encoding become text, or a reason why not."""

import codecs
import re

from swiftcore.data.documents.outcomes import DocumentRefused

# UTF-32's mark begins with UTF-16's, so the longer ones come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Where several encodings explain the bytes equally well, the one that most files have.
_USUAL = ("cp1252", "cp932", "gb18030", "big5", "euc_kr", "cp1251")
_WIDE_SHARE = 0.3
_EQUAL_CHAOS, _EQUAL_COHERENCE = 0.02, 0.2
_DECLARED = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)


def decode_text(raw: bytes, declared: str | None = None) -> tuple[str, str]:
    """Return text and the encoding it was written in; a byte order mark is no part of the text.

    Args:
        raw: the bytes of a text file.
        declared: encoding that the file names itself; tried after UTF-8.

    Raises:
        DocumentRefused: the bytes are no text in any encoding that can be told.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _decoded(raw[len(mark) :], encoding), encoding
    if b"\0" in raw:
        encoding = _wide_encoding(raw)
        return _decoded(raw, encoding), encoding
    for encoding in filter(None, ("utf-8", declared)):
        try:
            return raw.decode(encoding), encoding
        except (UnicodeDecodeError, LookupError):
            continue
    return _guessed(raw)


def declared_charset(raw: bytes) -> str | None:
    """Return the charset that the head of an HTML page names."""
    found = _DECLARED.search(raw, 0, 4096)
    return found[1].decode("ascii") if found else None


def _decoded(raw: bytes, encoding: str) -> str:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as err:
        raise DocumentRefused(f"not valid {encoding} at byte {err.start + 1}") from err
    if "\0" in text:
        raise DocumentRefused("holds NUL characters, so it is no text")
    return text


def _wide_encoding(raw: bytes) -> str:
    """Tell UTF-16 without a mark by its zero bytes, which stand at every other place."""
    half = len(raw) / 2
    if raw[1::2].count(0) > _WIDE_SHARE * half and raw[::2].count(0) == 0:
        return "utf-16-le"
    if raw[::2].count(0) > _WIDE_SHARE * half and raw[1::2].count(0) == 0:
        return "utf-16-be"
    raise DocumentRefused(
        f"holds NUL bytes, the first at byte {raw.index(0) + 1}, so it is no text"
    )


def _guessed(raw: bytes) -> tuple[str, str]:
    from charset_normalizer import from_bytes

    matches = list(from_bytes(raw))
    if not matches:
        raise DocumentRefused("the encoding can't be told, so it is no text")
    best = matches[0]
    for match in matches:
        usual = next((name for name in _USUAL if name in match.could_be_from_charset), None)
        is_equal = (match.chaos, match.coherence) == (best.chaos, best.coherence)
        # Western text is plausible in each of a dozen code pages, which differ in rare letters.
        is_western = (
            usual == "cp1252"
            and best.multi_byte_usage == 0
            and match.chaos <= best.chaos + _EQUAL_CHAOS
            and match.coherence >= best.coherence - _EQUAL_COHERENCE
        )
        if usual is not None and (is_equal or is_western):
            return raw.decode(usual), usual
    return raw.decode(best.encoding), best.encoding
