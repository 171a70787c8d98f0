"""Rows as tokens in a terminal: the weight in the margin, colours where there is a terminal.

A line of the row is a line here, and begins anew where the weight changes, so that the margin alone
says what is trained. All characters that would not show, or would command the terminal, are marks.
"""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from swiftcore.template import Template
from swiftcore.template.preview import Preview, Shown
from swiftcore.template.token_text import Unit, read_units, runs_of, shown_units, visible

_RESET = "\x1b[0m"
_COLOURS = {
    "plain": "\x1b[2m",
    "trained": "\x1b[32m",
    "more": "\x1b[33m",
    "less": "\x1b[36m",
    "control": "\x1b[1;35m",
    "mark": "\x1b[2;34m",
    "broken": "\x1b[31m",
    "head": "\x1b[1m",
    "alarm": "\x1b[1;31m",
}
_BAR_LENGTH = 40
_MAX_DIFFERENCES = 5


class TokenView:
    """Prints rows of one template.

    Args:
        template: decodes the tokens.
        ids: one line a token, with its place, id and weight.
        stream: where to; default: standard output.
    """

    def __init__(self, template: Template, *, ids: bool = False, stream: TextIO | None = None):
        self._template = template
        self._ids = ids
        self._stream = stream or sys.stdout
        self._coloured = _wants_colours(self._stream)

    def print_head(self, told: str) -> None:
        """Print template, settings and where the rows come from."""
        template = self._template
        self._say(self._tinted(f"template {template.name}", "head"))
        for name, value in template.settings.items():
            if name not in ("schema", "template"):
                shown = value if isinstance(value, str) else repr(value)
                self._say(f"  {name.replace('_', ' ')}: {self._safe(shown)}")
        if told:
            self._say(f"  rows: {self._safe(told)}")
        if template.settings.get("allow_control_tokens"):
            alarm = "allow_control_tokens is set: control tokens in everybody's text are parsed"
            self._say("  " + self._tinted(alarm, "alarm"))

    def print_figures(self, found: Preview, num_rows: int, mode: str) -> None:
        """Print what became of the rows, their lengths and the parity with the own template."""
        lengths = sorted(found.lengths)
        tokens = sum(lengths)
        trained = "" if mode == "infer" else f", {found.trained:,} of {tokens:,} tokens trained"
        self._say(f"  encoded: {len(lengths):,} of {num_rows:,} rows{trained}")
        for reason, number in sorted(found.drops.items()):
            self._say(f"  dropped: {number:,} x {self._safe(reason)}")
        self._say(
            f"  tokens a row: {lengths[0]:,} to {lengths[-1]:,}, "
            f"median {lengths[(len(lengths) - 1) // 2]:,}"
        )
        self._print_histogram(lengths)
        if found.parity is not None:
            self.print_parity(found.parity)

    def print_parity(self, parity: Mapping[str, Any]) -> None:
        """Print the comparison with the model's own template and its first differences."""
        self._say(f"  model's own template: {self._safe(str(parity.get('text', 'not compared')))}")
        for kind in ("prompt", "conversation"):
            tally = parity.get(kind) or {}
            if not tally.get("differing"):
                continue
            count = f"{tally['differing']:,} of {tally['compared']:,} {kind}s differ"
            self._say("  " + self._tinted(count, "alarm"))
            for each in tally["differences"][:_MAX_DIFFERENCES]:
                self._say(f"    row {each['row']:,}, token {each['token']:,}")
                for side, name in (("before", "after"), ("ours", "ours"), ("theirs", "own")):
                    self._say(f"      {name:<6}{self._safe(each[side])}")

    def print_sample(self, shown: Shown, *, origin: str = "", limit: int = 0) -> None:
        """Print one row.

        Args:
            shown: the row.
            origin: its file and line.
            limit: most tokens; the middle of a longer row is left out. 0: no limit.
        """
        encoded = shown.encoded
        trained = "" if encoded.labels is None else f", {encoded.num_labels:,} trained"
        where = f" ({self._safe(origin)})" if origin else ""
        title = f"row {shown.row:,}{where}: {len(encoded.input_ids):,} tokens{trained}."
        self._say("\n" + self._tinted(title, "head") + (f" {shown.line}" if shown.line else ""))
        units = read_units(self._template, encoded.input_ids, shown.weights)
        head, tail = _ends(units, len(encoded.input_ids), limit)
        has_labels = encoded.labels is not None
        self._print_units(head, has_labels=has_labels)
        if tail is not None:
            hidden = len(encoded.input_ids) - sum(len(unit.ids) for unit in (*head, *tail))
            self._say(self._tinted(f"       ... {hidden:,} tokens; --tokens 0 shows all", "plain"))
            self._print_units(tail, has_labels=has_labels)

    def _print_units(self, units: Sequence[Unit], *, has_labels: bool) -> None:
        if self._ids:
            self._print_ids(units)
            return
        for run in runs_of(units):
            margin = self._margin(run.weight, has_labels=has_labels)
            line: list[str] = []
            for unit, parts in shown_units(run.units):
                tone = self._unit_tone(unit, has_labels=has_labels)
                for text, is_mark in parts:
                    if text == "\n":
                        self._say(margin + "".join(line))
                        line = []
                    else:
                        line.append(self._tinted(text, self._mark_tone(unit) if is_mark else tone))
            if line:
                self._say(margin + "".join(line))

    def _print_ids(self, units: Sequence[Unit]) -> None:
        for unit, parts in shown_units(units):
            text = "".join(
                self._tinted(part, self._mark_tone(unit) if is_mark else self._unit_tone(unit))
                for part, is_mark in parts
                if part != "\n"
            )
            ids = " ".join(map(str, unit.ids))
            self._say(f"{unit.start:>6}  {ids:>8}  {unit.weight:>4g}  {text}")

    def _print_histogram(self, lengths: Sequence[int]) -> None:
        bars = Counter(max(length, 1).bit_length() - 1 for length in lengths)
        most = max(bars.values())
        for place in range(min(bars), max(bars) + 1):
            bar = "#" * -(-bars[place] * _BAR_LENGTH // most)
            self._say(f"    {2**place:>7,} to {2 ** (place + 1) - 1:>7,}  {bars[place]:>6,}  {bar}")

    def _margin(self, weight: float, *, has_labels: bool) -> str:
        shown = f"{weight:g}" if has_labels else ""
        return self._tinted(f"{shown:>6} | ", "plain")

    def _unit_tone(self, unit: Unit, *, has_labels: bool = True) -> str:
        if unit.is_control:
            return "control"
        if unit.weight in (0, 1) or not has_labels:
            return "trained" if unit.weight else "plain"
        return "more" if unit.weight > 1 else "less"

    def _mark_tone(self, unit: Unit) -> str:
        return "broken" if unit.is_broken else "mark"

    def _safe(self, text: str) -> str:
        return "".join(part for part, _ in visible(text) if part != "\n")

    def _tinted(self, text: str, tone: str) -> str:
        return f"{_COLOURS[tone]}{text}{_RESET}" if self._coloured and text else text

    def _say(self, text: str) -> None:
        print(text, file=self._stream)


def _ends(
    units: Sequence[Unit], length: int, limit: int
) -> tuple[Sequence[Unit], Sequence[Unit] | None]:
    """Return the units to show: all, or two thirds of the limit from the start and a third."""
    if not limit or length <= limit:
        return units, None
    head = limit * 2 // 3
    start = length - (limit - head)
    return [u for u in units if u.start < head], [u for u in units if u.start >= start]


def _wants_colours(stream: TextIO) -> bool:
    # https://no-color.org: any value but the empty one turns colours off.
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
