"""Reader of XLSX, by openpyxl in its streaming mode."""

import datetime
import io
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from swiftcore.data.documents.archives import checked_archive
from swiftcore.data.documents.outcomes import ExtractionLimits, Reading


def read_xlsx(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return each sheet in order, a line a row, cells parted by ` | `.

    A formula stands for its value as last computed; without one, as the formula itself.
    """
    from openpyxl import load_workbook

    checked_archive(raw, limits)
    values = load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
    formulas = load_workbook(io.BytesIO(raw), read_only=True, data_only=False)
    sections: list[tuple[str, str]] = []
    for sheet, with_formulas in zip(values.worksheets, formulas.worksheets, strict=True):
        text = "\n".join(_lines(sheet, with_formulas))
        if text:
            sections.append((f"sheet {sheet.title}", f"{sheet.title}\n{text}"))
    return Reading(sections)


def _lines(sheet: Any, with_formulas: Any) -> Iterator[str]:
    # A size that the file declares too small would cut rows off without a word.
    sheet.reset_dimensions()
    with_formulas.reset_dimensions()
    rows = zip_longest(
        sheet.iter_rows(values_only=True), with_formulas.iter_rows(values_only=True), fillvalue=()
    )
    for row, formulas in rows:
        cells = zip_longest(row, formulas)
        line = " | ".join(
            _cell(value if value is not None else formula) for value, formula in cells
        )
        line = line.rstrip(" |")
        if line:
            yield line


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return " ".join(str(value).split())
