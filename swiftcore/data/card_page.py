"""What the cards share: one page with its style sheet, tables, and text that can't be markup.

A page needs no script and no network and shows in light and dark.
"""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template


def page_html(title: str, body: Sequence[str], style: str = "") -> str:
    """Return a whole page.

    Args:
        title: name of the page.
        body: its parts, as HTML; empty ones are left out.
        style: rules of this page alone, after those of all cards.
    """
    page = Template(files("swiftcore.data").joinpath("card.html").read_text(encoding="utf-8"))
    text = "\n".join(part for part in body if part)
    return page.substitute(title=text_html(title), style=style, body=text)


def facts_html(facts: Sequence[tuple[str, str]]) -> str:
    """Return the figures at the top of a card: each a number, ready to be read, and its name."""
    items = (
        f"<li><b>{text_html(number)}</b><span>{text_html(name)}</span></li>"
        for number, name in facts
    )
    return f'<ul class="facts">{"".join(items)}</ul>'


def table_html(
    header: Sequence[str], rows: Sequence[Sequence[object]], sums: Sequence[object] | None = None
) -> str:
    """Return a table; columns that begin with a whole number are set as numbers."""
    numbers = [isinstance(cell, int) for cell in rows[0]] if rows else []
    numbers += [False] * (len(header) - len(numbers))
    head = "".join(
        f'<th class="number">{text_html(name)}</th>' if is_number else f"<th>{text_html(name)}</th>"
        for name, is_number in zip(header, numbers, strict=True)
    )
    lines = [f"<tr>{head}</tr>", *(f"<tr>{_cells(row)}</tr>" for row in rows)]
    if sums is not None:
        lines.append(f'<tr class="sum">{_cells(sums)}</tr>')
    return f"<table>{''.join(lines)}</table>"


def text_html(value: object) -> str:
    """Escape text; what is no Unicode becomes a question mark."""
    return escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def _cells(row: Sequence[object]) -> str:
    cells: list[str] = []
    for cell in row:
        shown = f"{cell:,}" if isinstance(cell, int) else text_html(cell)
        is_number = isinstance(cell, int) or shown.endswith(" %")
        cells.append(f'<td class="number">{shown}</td>' if is_number else f"<td>{shown}</td>")
    return "".join(cells)
