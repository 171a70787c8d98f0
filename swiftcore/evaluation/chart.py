"""The chart of a report: one bar a candidate and metric, with its confidence interval."""

from pathlib import Path

from swiftcore.errors import EnvironmentMissing
from swiftcore.evaluation.report import EvaluationReport

_COLORS = ("#9aa5b1", "#2f6fde", "#1a9c6b", "#d9822b", "#8b5cc7", "#c23b4e")
# Figures that are no share have no place on an axis from 0 to 1.
_UNBOUNDED = "perplexity/"


def metric_names(report: EvaluationReport) -> list[str]:
    """Return the metrics of all candidates, in order of first appearance."""
    return list(
        dict.fromkeys(name for found in report.candidates.values() for name in found.metrics)
    )


def write_chart(report: EvaluationReport, path: Path) -> None:
    """Draw the report's metrics side by side into a PNG file.

    Raises:
        EnvironmentMissing: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as err:
        raise EnvironmentMissing(
            "the evaluation report draws its chart with matplotlib, which is not installed",
            do="pip install matplotlib",
        ) from err
    metrics = [name for name in metric_names(report) if not name.startswith(_UNBOUNDED)]
    figure = Figure(figsize=(max(6.0, 1.8 * len(metrics) + 2), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(report.candidates))
    for position, (name, found) in enumerate(report.candidates.items()):
        present = [(i, found.metrics[m]) for i, m in enumerate(metrics) if m in found.metrics]
        axes.bar(
            [i + (position - (len(report.candidates) - 1) / 2) * width for i, _ in present],
            [score.value for _, score in present],
            width,
            yerr=[
                [max(0.0, score.value - score.low) for _, score in present],
                [max(0.0, score.high - score.value) for _, score in present],
            ],
            capsize=2,
            color=_COLORS[position % len(_COLORS)],
            error_kw={"linewidth": 0.9},
            label=name,
        )
    axes.set_xticks(range(len(metrics)), metrics)
    axes.set_ylim(0, 1.05)
    axes.spines[["top", "right"]].set_visible(False)
    if report.candidates:
        axes.legend(
            frameon=False, ncols=len(report.candidates), loc="lower left", bbox_to_anchor=(0, 1)
        )
    # Without the version string two runs give the same bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
