"""Reader of Jupyter notebooks: text cells as they are, code cells as fenced blocks."""

import json
from typing import Any

from swiftcore.data.documents.decoding import decode_text
from swiftcore.data.documents.outcomes import DocumentRefused, ExtractionLimits, Reading


def read_notebook(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return the cells in order; outputs stay out, because running the code makes them again.

    Raises:
        DocumentRefused: it is no notebook.
    """
    text, _ = decode_text(raw)
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DocumentRefused(f"not valid JSON: {err}") from err
    cells = _cells(notebook)
    if cells is None:
        raise DocumentRefused("the notebook has no list of cells")
    language = _language(notebook)
    sections = []
    for number, cell in enumerate(cells, start=1):
        source = _source(cell)
        if not source.strip():
            continue
        is_code = isinstance(cell, dict) and cell.get("cell_type") == "code"
        sections.append((f"cell {number}", _fenced(source, language) if is_code else source))
    return Reading(sections)


def _cells(notebook: Any) -> list[Any] | None:
    if not isinstance(notebook, dict):
        return None
    cells = notebook.get("cells")
    if cells is None and isinstance(notebook.get("worksheets"), list):
        # Notebooks of format 3 keep their cells in worksheets.
        sheets = [sheet for sheet in notebook["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in sheet.get("cells") or []]
    return cells if isinstance(cells, list) else None


def _source(cell: Any) -> str:
    if not isinstance(cell, dict):
        return ""
    source = cell.get("source", cell.get("input", ""))
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata")
    info = metadata.get("language_info") if isinstance(metadata, dict) else None
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) and name.isidentifier() else "python"


def _fenced(source: str, language: str) -> str:
    fence = "```"
    while fence in source:
        fence += "`"
    return f"{fence}{language}\n{source.rstrip()}\n{fence}"
