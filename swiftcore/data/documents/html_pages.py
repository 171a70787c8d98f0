"""Reader of HTML: the main text by trafilatura, or all that is visible where it finds none."""

import re
from typing import Any

from swiftcore.data.documents.decoding import declared_charset, decode_text
from swiftcore.data.documents.outcomes import ExtractionLimits, Reading

_UNSEEN = {"script", "style", "template", "noscript", "iframe", "object", "svg", "head"}
_BLOCK = re.compile(
    "address|article|aside|blockquote|body|caption|center|dd|details|dialog|div|dl|dt|"
    "fieldset|figcaption|figure|footer|form|h[1-6r]|header|legend|li|main|nav|ol|"
    "option|p|pre|section|summary|table|tbody|tfoot|thead|title|tr|ul"
)
# Less than this of a page is no main text: the page is a list or a table that looks like a menu.
_LEAST_SHARE = 0.1
_SPACE = re.compile(r"\s+")
_GAP = re.compile(r"\n{3,}")


def read_html(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return the main text of a page; a note says how much of the visible text it is."""
    text, encoding = decode_text(raw, declared_charset(raw))
    notes = [] if encoding == "utf-8" else [f"decoded as {encoding}"]
    main, visible = main_text(text), visible_text(html_tree(text))
    if len(main.strip()) < _LEAST_SHARE * len(visible) or not main.strip():
        return Reading([("", visible)], [*notes, "no main text was found: all visible text"])
    if len(main) < len(visible):
        notes.append(f"main text only: {len(main):,} of {len(visible):,} visible characters")
    return Reading([("", main)], notes)


def main_text(page: str) -> str:
    """Return what trafilatura takes for the main text; "" where it finds none."""
    import trafilatura

    found = trafilatura.extract(page, include_comments=True, include_tables=True, favor_recall=True)
    return found or ""


def html_tree(page: str) -> Any:
    """Parse HTML, however broken; None where there is no element at all."""
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

    parser = etree.HTMLParser(encoding="utf-8", no_network=True, remove_pis=True, huge_tree=False)
    try:
        return etree.fromstring(page.encode("utf-8", errors="replace"), parser)
    except etree.ParserError:
        return None


def visible_text(root: Any) -> str:
    """Return the text that a reader of the page sees; scripts and styles never."""
    if root is None:
        return ""
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

    flow = _Flow()
    walk = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    for event, element in walk:
        name = etree.QName(element).localname.lower() if isinstance(element.tag, str) else ""
        if event == "start" and name in _UNSEEN:
            walk.skip_subtree()
        elif event == "start":
            flow.open(name)
            flow.add(element.text)
        if event == "start":
            continue
        if event == "end" and name not in _UNSEEN:
            flow.close(name, has_next=element.getnext() is not None)
        if element is not root:
            flow.add(element.tail)
    return flow.text()


class _Flow:
    """Text as it flows over blocks and lines."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._preformatted = 0

    def open(self, name: str) -> None:
        if _BLOCK.fullmatch(name) or name == "br":
            self._pieces.append("\n")
        self._preformatted += name == "pre"

    def close(self, name: str, *, has_next: bool) -> None:
        self._preformatted -= name == "pre"
        if name in ("td", "th") and has_next:
            self._pieces.append(" | ")
        elif _BLOCK.fullmatch(name):
            self._pieces.append("\n\n" if name in ("p", "h1", "h2", "h3", "table") else "\n")

    def add(self, text: str | None) -> None:
        if not text:
            return
        self._pieces.append(text if self._preformatted else _SPACE.sub(" ", text))

    def text(self) -> str:
        lines = "".join(self._pieces).split("\n")
        kept = (line.rstrip() if line.startswith("  ") else line.strip() for line in lines)
        return _GAP.sub("\n\n", "\n".join(kept)).strip("\n")
