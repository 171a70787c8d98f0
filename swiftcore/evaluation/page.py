"""The HTML page of a report: one file without links, everything from a model escaped."""

import base64
import html
from collections.abc import Iterable

from swiftcore.evaluation.chart import metric_names
from swiftcore.evaluation.intervals import Estimate
from swiftcore.evaluation.report import LOWER_IS_BETTER, AnsweredSample, EvaluationReport

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
td small { display: block; opacity: .65; }
img { max-width: 100%; background: #fff; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8881; padding: .5rem .7rem;
      margin: .2rem 0 .6rem; max-height: 20rem; overflow: auto; }
.bad { color: #c23b4e; font-weight: 600; }
details { margin: .5rem 0; }
"""
_SHOWN_CHARACTERS = 4000


def report_page(report: EvaluationReport, chart_png: bytes) -> str:
    """Return the page as HTML text; the chart is embedded."""
    chart = base64.b64encode(chart_png).decode("ascii")
    body = [
        "<h1>Evaluation</h1>",
        f"<p>{report.num_samples} steps of {report.num_rows} rows, test set "
        f"<code>{report.test_digest[:12]}</code>. {_contamination_line(report)}</p>",
        _table(report),
        f"<p>Small print under a value: {_percent(report)} confidence interval and number of "
        "steps the metric applies to. Lower is better for "
        f"{', '.join(_lower_is_better(report))}.</p>",
        f'<img alt="metrics with confidence intervals" src="data:image/png;base64,{chart}">',
        *(_subsets(report, name) for name in _with_subsets(report)),
        *(_failures(report, name) for name in report.candidates),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _lower_is_better(report: EvaluationReport) -> list[str]:
    shown = LOWER_IS_BETTER & set(metric_names(report))
    return sorted({"HalluRate"} | shown)


def _with_subsets(report: EvaluationReport) -> list[str]:
    results = report.candidates.values()
    return list(dict.fromkeys(name for found in results for name in found.subsets))


def _subsets(report: EvaluationReport, benchmark: str) -> str:
    """Return the table of a benchmark's parts."""
    names = list(report.candidates)
    found = {name: report.candidates[name].subsets.get(benchmark, {}) for name in names}
    rows = [_row("", (html.escape(name) for name in names), "th")]
    parts = [(part, m) for part_of in found.values() for part in part_of for m in part_of[part]]
    for part, metric in dict.fromkeys(parts):
        scores = (found[name].get(part, {}).get(metric) for name in names)
        rows.append(_row(f"{part}: {metric}", map(_score, scores)))
    return f"<h2>{html.escape(benchmark)}, part by part</h2><table>{''.join(rows)}</table>"


def _percent(report: EvaluationReport) -> str:
    return f"{report.settings.get('confidence', 0.95):.0%}"


def _contamination_line(report: EvaluationReport) -> str:
    found = report.contamination
    if found is None:
        return "Overlap with the training rows was not checked."
    overlapping = found["exact"] + found["normalized"]
    text = (
        f"{overlapping} of {found['num_test']} test prompts occur among "
        f"{found['num_train']} training rows."
    )
    return f'<span class="bad">{text}</span>' if overlapping else text


def _table(report: EvaluationReport) -> str:
    names = list(report.candidates)
    rows = [_row("", (html.escape(name) for name in names), "th")]
    for metric in metric_names(report):
        rows.append(_row(metric, (_score_cell(report, name, metric) for name in names)))
    results = report.candidates.values()
    rows += [
        _row("coverage", (_coverage_cell(found.coverage) for found in results)),
        _row("cut off at the longest answer", (str(found.truncated) for found in results)),
        _row("size on disk", (_size(found.size_bytes) for found in results)),
        _row("tokens/s", (f"{found.tokens_per_second:,.0f}" for found in results)),
        _row("seconds of generation", (f"{found.seconds:.1f}" for found in results)),
    ]
    return "<table>" + "".join(rows) + "</table>"


def _row(title: str, cells: Iterable[str], tag: str = "td") -> str:
    inner = "".join(f"<{tag}>{cell}</{tag}>" for cell in cells)
    return f"<tr><{tag}>{html.escape(title)}</{tag}>{inner}</tr>"


def _score_cell(report: EvaluationReport, name: str, metric: str) -> str:
    return _score(report.candidates[name].metrics.get(metric))


def _score(found: Estimate | None) -> str:
    if found is None:
        return "&ndash;"
    return f"{found.value:.3f}<small>{found.low:.3f} to {found.high:.3f}, n&nbsp;{found.n}</small>"


def _coverage_cell(coverage: float) -> str:
    text = f"{coverage:.1%}"
    return text if coverage == 1 else f'<span class="bad">{text}</span>'


def _size(size_bytes: int) -> str:
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _failures(report: EvaluationReport, name: str) -> str:
    failures = report.telling_failures(name)
    title = f"<h2>{html.escape(name)}: most telling failures</h2>"
    if not failures:
        return title + "<p>None: every step got the full score.</p>"
    return title + "".join(_failure(sample) for sample in failures)


def _failure(sample: AnsweredSample) -> str:
    scores = ", ".join(f"{name} {value:.2f}" for name, value in sample.metrics.items())
    parts = [("target", sample.target), ("answer", sample.output), ("prompt", sample.prompt)]
    if sample.extracted is not None:
        parts.insert(0, ("read as", sample.extracted))
    for label, said in (("why", sample.note), ("error", sample.error)):
        if said is not None:
            parts.insert(0, (label, said))
    shown = "".join(f"{label}<pre>{_shorten(text)}</pre>" for label, text in parts)
    return (
        f"<details><summary>{_place(sample)}, step {sample.step}: {html.escape(scores)} "
        f"({html.escape(sample.finish_reason)})</summary>{shown}</details>"
    )


def _place(sample: AnsweredSample) -> str:
    if sample.benchmark is None:
        return f"row {sample.row}"
    return html.escape(f"{sample.benchmark}, {sample.subset}, row {sample.row}")


def _shorten(text: str) -> str:
    if len(text) <= _SHOWN_CHARACTERS:
        return html.escape(text)
    half = _SHOWN_CHARACTERS // 2
    cut = len(text) - 2 * half
    return html.escape(f"{text[:half]}\n[{cut} characters left out]\n{text[-half:]}")
