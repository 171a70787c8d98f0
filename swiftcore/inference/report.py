"""What a result file holds: how many answers, how many failures, and the metric asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from swiftcore.errors import DataError
from swiftcore.evaluation.intervals import Estimate, estimate
from swiftcore.inference.questions import Question
from swiftcore.scores.nlg import nlg_metrics
from swiftcore.scores.text import exact_match, without_thinking

Metric = Literal["acc", "rouge"]
_SHOWN_ERRORS = 3


@dataclass
class Summary:
    """Figures of a result file.

    Args:
        rows: lines.
        failed: lines without an answer.
        cut_off: answers that ended for lack of room.
        completion_tokens: tokens of all answers.
        errors: why there is no answer, and how often.
        metrics: means over the rows that have an answer of their own to compare with.
    """

    rows: int = 0
    failed: int = 0
    cut_off: int = 0
    completion_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    metrics: dict[str, Estimate] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready fields."""
        return {
            "rows": self.rows,
            "failed": self.failed,
            "cut_off": self.cut_off,
            "completion_tokens": self.completion_tokens,
            "errors": dict(self.errors.most_common()),
            "metrics": {name: found.as_dict() for name, found in self.metrics.items()},
        }

    def commonest_errors(self) -> list[str]:
        """Return the commonest reasons of failures, each with its number."""
        return [f"{count} x {text}" for text, count in self.errors.most_common(_SHOWN_ERRORS)]


def summarize(lines: Iterable[Mapping[str, Any]], metric: Metric | None, seed: int) -> Summary:
    """Read the lines of a result file.

    A row without an answer counts as wrong; one without a reference counts in no metric.

    Args:
        lines: of the file.
        metric: what to compute.
        seed: of the intervals' bootstrap.
    """
    summary = Summary()
    values: dict[str, list[float]] = {}
    for line in lines:
        summary.rows += 1
        summary.cut_off += line.get("finish_reason") == "length"
        summary.completion_tokens += line.get("completion_tokens") or 0
        error = line.get("error")
        if error is not None:
            summary.failed += 1
            summary.errors[error] += 1
        if metric is not None and line.get("labels") is not None:
            for name, value in _scores(line["response"], line["labels"], metric).items():
                values.setdefault(name, []).append(value)
    summary.metrics = {
        name: estimate(scores, confidence=0.95, num_resamples=1000, seed=seed)
        for name, scores in values.items()
    }
    return summary


def require_references(questions: Iterable[Question], metric: Metric | None, column: str) -> None:
    """Refuse a metric for rows that bring nothing to compare with.

    Args:
        questions: what is answered.
        metric: what is asked for.
        column: the row's field that holds a label, where texts are scored; empty: its answer.

    Raises:
        DataError: none of them has a reference.
    """
    if metric is None:
        return
    if any((q.row.get(column) if column else q.reference) is not None for q in questions):
        return
    raise DataError(
        "No row has an answer to compare with.",
        where="--metric",
        found=metric,
        expected=f"rows with a {column}" if column else "rows that end with an assistant message",
        do="leave --metric out, or add the answers to the rows",
    )


def _scores(response: Any, reference: Any, metric: Metric) -> dict[str, float]:
    if not isinstance(reference, str):
        return {"acc": float(response == reference)}
    answer, expected = without_thinking(response or ""), without_thinking(reference)
    if metric == "acc":
        wrong = response is None
        return {"acc": 0.0 if wrong else exact_match(answer, expected)}
    return nlg_metrics(answer, expected)
