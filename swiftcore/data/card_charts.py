"""Drawings of the data card as inline SVG; colours come from the page's style sheet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import cast

_BARS_PER_DOUBLING = 2
_FAR_BEYOND = 8

_FLOW_WIDTH, _FLOW_HEIGHT = 720, 150
_FLOW_LEFT, _FLOW_RIGHT, _NODE = 120, 430, 14
_LABEL_PITCH = 24

_PLOT_WIDTH, _PLOT_HEIGHT = 480, 190
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_BOTTOM = 14, 26, 24


@dataclass(frozen=True, slots=True)
class Fate:
    """Where some of the rows read ended: a name, a number, and kept, left or bad."""

    name: str
    rows: int
    tone: str


def flow_chart(fates: Sequence[Fate]) -> str:
    """Draw how the rows read divide into fates; band heights are in proportion to rows."""
    total = sum(fate.rows for fate in fates)
    shown = [fate for fate in fates if fate.rows]
    if not total:
        return ""
    sizes = [max(_FLOW_HEIGHT * fate.rows / total, 1.5) for fate in shown]
    starts, height = _stacked(sizes)
    left = (height - _FLOW_HEIGHT) / 2
    parts = [
        _rect(_FLOW_LEFT, left, _NODE, _FLOW_HEIGHT, "read"),
        f'<text x="{_FLOW_LEFT - 10}" y="{height / 2 - 4:.0f}" text-anchor="end">{total:,}</text>',
        f'<text x="{_FLOW_LEFT - 10}" y="{height / 2 + 12:.0f}" text-anchor="end" class="soft">'
        "rows read</text>",
    ]
    for fate, start, thick in zip(shown, starts, sizes, strict=True):
        parts.append(_band(left, start, thick, fate.tone))
        parts.append(_rect(_FLOW_RIGHT, start, _NODE, thick, fate.tone))
        middle = start + thick / 2 + 4
        parts.append(
            f'<text x="{_FLOW_RIGHT + _NODE + 10}" y="{middle:.1f}">{fate.rows:,} '
            f'<tspan class="soft">{escape(fate.name)}, {share(fate.rows, total)}</tspan></text>'
        )
        left += _FLOW_HEIGHT * fate.rows / total
    return _svg(_FLOW_WIDTH, height, "How the rows read divide", parts)


def _stacked(sizes: Sequence[float]) -> tuple[list[float], float]:
    """Return where each band ends on the right, with room for a label each, and the height."""
    at = 10.0
    places: list[float] = []
    for size in sizes:
        pitch = max(size + 6, _LABEL_PITCH)
        places.append(at + (pitch - size) / 2)
        at += pitch
    return places, at + 10


def _band(left: float, right: float, thick: float, tone: str) -> str:
    x1, x2 = _FLOW_LEFT + _NODE, _FLOW_RIGHT
    middle = (x1 + x2) / 2
    path = (
        f"M{x1} {left:.1f}C{middle} {left:.1f} {middle} {right:.1f} {x2} {right:.1f}"
        f"V{right + thick:.1f}C{middle} {right + thick:.1f} {middle} {left + thick:.1f} "
        f"{x1} {left + thick:.1f}Z"
    )
    return f'<path class="band {tone}" d="{path}"/>'


def length_histogram(
    lengths: Mapping[str, object],
    bins_per_doubling: int,
    unit: str,
    dropped: Mapping[str, object] | None = None,
    limit: int | None = None,
) -> str:
    """Draw a histogram of lengths over a logarithmic axis, with median and 95th percentile.

    Args:
        lengths: what `Lengths.as_dict` returns.
        bins_per_doubling: how fine its bins are; they are joined to two a doubling here.
        unit: what is counted, for the caption.
        dropped: lengths of rows that were left out, drawn on top of the others.
        limit: longest length that is kept: a line, where it is not far beyond the longest row.
    """
    bars = _bars(lengths, bins_per_doubling)
    above = _bars(dropped, bins_per_doubling) if dropped else {}
    heights = {place: bars.get(place, 0) + above.get(place, 0) for place in {*bars, *above}}
    if not heights:
        return ""
    first, last = min(heights), max(heights)
    if limit is not None:
        end = math.floor(math.log2(limit) * _BARS_PER_DOUBLING)
        limit = None if end > last + _FAR_BEYOND else limit
        last = last if limit is None else max(last, end)
    width = (_PLOT_WIDTH - 2 * _MARGIN_LEFT) / (last - first + 1)
    base = _PLOT_HEIGHT - _MARGIN_BOTTOM
    scale = (base - _MARGIN_TOP) / max(heights.values())
    parts: list[str] = []
    for place in sorted(heights):
        x = _MARGIN_LEFT + (place - first) * width
        foot = base
        for rows, tone, what in ((bars, "bar", "rows"), (above, "left", "dropped rows")):
            count = rows.get(place, 0)
            if not count:
                continue
            title = f"<title>{count:,} {what} from {_bar_start(place):,.0f} {escape(unit)}</title>"
            tall = max(count * scale, 1)
            parts.append(_rect(x + 0.5, foot - tall, max(width - 1, 1), tall, tone, title))
            foot -= tall
    parts += _axis(first, last, width, base)
    marks = [(cast(int, lengths["median"]), "median"), (cast(int, lengths["p95"]), "95 %")]
    if limit is not None:
        # The two share the upper lines; a limit is what the whole drawing is about.
        marks = [marks[0], (limit, "max_length")]
    for value, label in marks:
        parts.append(_mark(value, label, first, width, base, label != "median"))
    return _svg(_PLOT_WIDTH, _PLOT_HEIGHT, f"Rows by number of {unit}", parts)


def _bars(lengths: Mapping[str, object], bins_per_doubling: int) -> dict[int, int]:
    bars: dict[int, int] = {}
    for name, rows in cast(Mapping[str, int], lengths["bins"]).items():
        place = _bar_of(int(name), bins_per_doubling)
        bars[place] = bars.get(place, 0) + rows
    return bars


def _bar_of(place: int, bins_per_doubling: int) -> int:
    """Return the bar of a bin; bin 0 holds length 0 and has a bar of its own, -1."""
    return (place - 1) * _BARS_PER_DOUBLING // bins_per_doubling if place > 0 else -1


def _bar_start(bar: int) -> float:
    return 2 ** (bar / _BARS_PER_DOUBLING) if bar >= 0 else 0


def _axis(first: int, last: int, width: float, base: float) -> list[str]:
    right = _PLOT_WIDTH - _MARGIN_LEFT
    parts = [f'<path class="axis" d="M{_MARGIN_LEFT} {base}H{right}"/>']
    step = max(1, math.ceil((last - first + 1) * 42 / (right - _MARGIN_LEFT)))
    for bar in range(first, last + 2, step):
        x = _MARGIN_LEFT + (bar - first) * width
        anchor = "start" if bar == first else "end" if x > right - 12 else "middle"
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{base + 16}" text-anchor="{anchor}">'
            f"{short_number(_bar_start(bar))}</text>"
        )
    return parts


def _mark(value: int, label: str, first: int, width: float, base: float, right: bool) -> str:
    bar = math.log2(value) * _BARS_PER_DOUBLING if value > 0 else -0.5
    x = min(max(_MARGIN_LEFT + (bar - first) * width, _MARGIN_LEFT), _PLOT_WIDTH - _MARGIN_LEFT)
    anchor, shift = ("start", 4) if right and x < _PLOT_WIDTH * 0.75 else ("end", -4)
    if not right and x < _PLOT_WIDTH * 0.25:
        anchor, shift = "start", 4
    y = 22 if right else 10
    return (
        f'<path class="mark" d="M{x:.1f} 4V{base}"/><text x="{x + shift:.1f}" y="{y + 2}" '
        f'text-anchor="{anchor}">{label} {short_number(value)}</text>'
    )


def share(part: int, whole: int) -> str:
    """Return a share in per cent, never rounded to nothing or to all."""
    if not whole:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "under 0.1 %"
    if 99.9 < percent < 100:
        return "over 99.9 %"
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1f} %"


def short_number(value: float) -> str:
    """Return a number in at most four characters or so: 950, 1.4k, 23k, 1.1M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            scaled = value / limit
            return f"{scaled:.0f}{unit}" if scaled >= 10 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}"


def _rect(x: float, y: float, width: float, height: float, tone: str, inside: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{tone}" {place}>{inside}</rect>'


def _svg(width: int, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
