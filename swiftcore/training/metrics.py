"""Metric lines of a run: one JSON object a logging step, in a file that only grows.

After a resume the lines behind the checkpoint are dropped first, so the file of an interrupted run
ends up equal to that of an uninterrupted one, but for `time`.
"""

import csv
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swiftcore.atomic import write_text_synced

Line = dict[str, Any]
# What differs between equal runs: it is shown and tracked, and stays out of artifacts.
MEASURED = ("time", "tokens_per_second", "mfu", "peak_memory_gib")


class MetricsLog:
    """Appends metric lines to a file.

    A line has `step`, `epoch`, `time` (UTC) and either `loss`, `learning_rate`, `grad_norm`,
    `tokens_per_second`, `mfu` and `peak_memory_gib`, or `eval_loss`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep_until(self, step: int) -> None:
        """Drop the lines of later steps, and a line that a crash cut off."""
        kept = [line for line in read_lines(self._path) if line["step"] <= step]
        write_text_synced(self._path, "".join(_json(line) for line in kept))

    def append(self, line: Line) -> None:
        """Write one line and bring it to the disk."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(_json({**line, "time": now}))
            stream.flush()
            os.fsync(stream.fileno())


def read_lines(path: Path) -> list[Line]:
    """Return the whole lines of a metrics file; the last one may still be in writing."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


def describe_line(line: Line) -> str:
    """Return a metric line as a person reads it beside a progress bar."""
    shown = (
        ("eval_loss", "eval_loss {:.4f}"),
        ("loss", "loss {:.4f}"),
        ("grad_norm", "grad norm {:.3g}"),
        ("tokens_per_second", "{:,.0f} tokens/s"),
        ("mfu", "MFU {:.1%}"),
        ("peak_memory_gib", "{:.1f} GiB"),
    )
    return "  ".join(form.format(line[name]) for name, form in shown if name in line)


def write_history(
    lines: list[Line], folder: Path, *, loss: str = "cross-entropy a label token"
) -> None:
    """Write metrics.jsonl without what was measured, loss.csv (step, loss, eval_loss) and loss.png.

    Equal lines give equal bytes: an artifact does not say when it was made.

    `loss` is what the picture calls it.
    """
    timeless = [
        {name: value for name, value in line.items() if name not in MEASURED} for line in lines
    ]
    (folder / "metrics.jsonl").write_text("".join(map(_json, timeless)), encoding="utf-8")
    by_step: dict[int, Line] = {}
    for line in timeless:
        by_step.setdefault(line["step"], {}).update(line)
    with (folder / "loss.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("step", "loss", "eval_loss"))
        for step, line in sorted(by_step.items()):
            writer.writerow((step, line.get("loss", ""), line.get("eval_loss", "")))
    _plot(timeless, folder / "loss.png", loss)


def _plot(lines: list[Line], file: Path, loss: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, label in (("loss", "training"), ("eval_loss", "validation")):
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            marker = "o" if name == "eval_loss" or len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), label=label, marker=marker)
    axes.set(xlabel="step", ylabel=loss)
    axes.grid(alpha=0.3)
    axes.legend()
    # Without this, matplotlib writes its version into the file.
    figure.savefig(file, dpi=100, metadata={"Software": None})


def _json(line: Line) -> str:
    return json.dumps(line) + "\n"
