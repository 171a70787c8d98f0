"""Reader of PPTX: python-pptx opens the package, the text of each slide is walked here."""

import io
from collections.abc import Iterator
from typing import Any

from swiftcore.data.documents.archives import checked_archive
from swiftcore.data.documents.outcomes import ExtractionLimits, Reading
from swiftcore.data.documents.safe_xml import parse_xml

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_ALTERNATE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"


def read_pptx(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return each slide in order: shapes, groups, tables, diagrams, charts, then its notes."""
    from pptx import Presentation

    checked_archive(raw, limits)
    sections: list[tuple[str, str]] = []
    for number, slide in enumerate(Presentation(io.BytesIO(raw)).slides, start=1):
        lines = [*_lines(slide.element), *_beside(slide.part)]
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        if notes is not None and notes.text.strip():
            lines.append(f"Notes: {notes.text.strip()}")
        text = "\n".join(line for line in lines if line.strip())
        if text:
            sections.append((f"slide {number}", text))
    return Reading(sections)


def _lines(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag == f"{_A}p":
            yield _paragraph(child)
        elif child.tag == f"{_A}tbl":
            yield from map(_table_row, child.iter(f"{_A}tr"))
        elif child.tag == _ALTERNATE:
            # Choice and Fallback hold the same shape twice, for newer and older programs.
            for choice in list(child)[:1]:
                yield from _lines(choice)
        else:
            yield from _lines(child)


def _paragraph(element: Any) -> str:
    texts = (
        node.text or "" if node.tag == f"{_A}t" else "\n"
        for node in element.iter(f"{_A}t", f"{_A}br")
    )
    return "".join(texts)


def _table_row(row: Any) -> str:
    cells = (" ".join(map(_paragraph, cell.iter(f"{_A}p"))) for cell in row.iter(f"{_A}tc"))
    return " | ".join(" ".join(cell.split()) for cell in cells).rstrip(" |")


def _beside(part: Any) -> Iterator[str]:
    """Yield the text of diagrams and charts, which are parts of their own."""
    for _, relation in sorted(part.rels.items()):
        if relation.is_external:
            continue
        kind = relation.reltype.rpartition("/")[2]
        if kind == "diagramData":
            yield from _lines(parse_xml(relation.target_part.blob))
        elif kind == "chart":
            root = parse_xml(relation.target_part.blob)
            yield from _lines(root)
            for series in root.iter(f"{_CHART}ser"):  # codespell:ignore ser
                yield " | ".join(value.text or "" for value in series.iter(f"{_CHART}v"))
