"""What an evaluation found, and the files that say so.

    report.json            everything below
    metrics.json           {candidate: {metric: value}}, for `dvc metrics show`
    samples/<name>.jsonl   one line a step: prompt, output, target, metrics, finish reason
    samples/<benchmark>/<name>.jsonl   the same for the questions of a benchmark
    report.html            one page for people; report.png its chart

Nothing but the measured seconds and tokens a second differs between two equal runs.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swiftcore.evaluation.intervals import Estimate
from swiftcore.recipe.sections import EvaluateSection, ToolSettings, tool_settings

SCHEMA = 1
LOWER_IS_BETTER = frozenset(
    {"HalluRate", "log_loss", "perplexity/log_loss", "perplexity/perplexity"}
)
# Settings that only benchmarks read: absent where there is none.
_OF_BENCHMARKS = {"eval_backend", "eval_dataset", "eval_dataset_args", "eval_generation_config"}
# Fields of a sample that only benchmarks fill.
_OPTIONAL = ("benchmark", "subset", "extracted", "note", "weights")


@dataclass(frozen=True)
class AnsweredSample:
    """One step as it was answered and scored, a line of samples/<candidate>.jsonl.

    A sample that could not be answered has an `error`, finish reason "error" and the scores of an
    empty answer. A question of a benchmark further has the `benchmark` and its `subset`; what was
    `extracted` from the answer; a `note` on why it failed; and `weights` of metrics that count
    more than once in the benchmark's figure (instructions of a prompt, tokens of a text).
    """

    row: int
    step: int
    prompt: str
    output: str
    target: str
    metrics: dict[str, float]
    finish_reason: str
    completion_tokens: int
    error: str | None = None
    benchmark: str | None = None
    subset: str | None = None
    extracted: str | None = None
    note: str | None = None
    weights: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they stand in the file."""
        fields = asdict(self)
        return {k: v for k, v in fields.items() if v is not None or k not in _OPTIONAL}

    @property
    def key(self) -> tuple[str | None, int, int]:
        """What tells the sample from all others of a candidate."""
        return self.benchmark, self.row, self.step

    @property
    def score(self) -> float:
        """Mean of the sample's metrics, each turned so that 1 is best."""
        if self.error is not None or not self.metrics:
            return 0.0
        turned = [1 - v if k in LOWER_IS_BETTER else v for k, v in self.metrics.items()]
        return math.fsum(turned) / len(turned)


@dataclass(frozen=True)
class CandidateResult:
    """Scores and measured facts of one candidate.

    `coverage` is the share of steps that got an answer, `truncated` counts answers cut off at
    `max_new_tokens`, `seconds` is generation alone, without loading. `subsets` holds the figures
    of each part of a benchmark: benchmark -> part -> metric.
    """

    metrics: dict[str, Estimate]
    coverage: float
    num_failed: int
    truncated: int
    size_bytes: int
    generated_tokens: int
    seconds: float
    tokens_per_second: float
    subsets: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they stand in report.json."""
        fields = asdict(self)
        if not self.subsets:
            del fields["subsets"]
        return fields


@dataclass(frozen=True)
class EvaluationReport:
    """All candidates over one test set."""

    num_rows: int
    num_samples: int
    test_digest: str
    settings: dict[str, Any]
    candidates: dict[str, CandidateResult]
    samples: dict[str, list[AnsweredSample]]
    contamination: dict[str, Any] | None = None
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of report.json."""
        benchmarks = {"benchmarks": self.benchmarks} if self.benchmarks else {}
        return {
            "schema": SCHEMA,
            "num_rows": self.num_rows,
            "num_samples": self.num_samples,
            "test_digest": self.test_digest,
            "settings": self.settings,
            "contamination": self.contamination,
            **benchmarks,
            "candidates": {name: found.as_dict() for name, found in self.candidates.items()},
        }

    def flat_metrics(self) -> dict[str, dict[str, float]]:
        """Return the content of metrics.json."""
        return {
            name: {metric: found.value for metric, found in result.metrics.items()}
            | {"coverage": result.coverage}
            for name, result in self.candidates.items()
        }

    def write(self, out_dir: Path) -> None:
        """Write all files of the module's list into out_dir."""
        from swiftcore.evaluation.chart import write_chart
        from swiftcore.evaluation.page import report_page

        for name, answered in self.samples.items():
            for benchmark in (None, *self.benchmarks):
                folder = out_dir / "samples" / (benchmark or "")
                folder.mkdir(parents=True, exist_ok=True)
                mine = [sample for sample in answered if sample.benchmark == benchmark]
                if mine or benchmark is None:
                    write_samples(folder / f"{name}.jsonl", mine)
        _write_json(out_dir / "metrics.json", self.flat_metrics())
        chart = out_dir / "report.png"
        write_chart(self, chart)
        page = report_page(self, chart.read_bytes())
        (out_dir / "report.html").write_text(page, encoding="utf-8")
        _write_json(out_dir / "report.json", self.as_dict())

    def telling_failures(self, name: str, limit: int = 5) -> list[AnsweredSample]:
        """Return the worst steps of a candidate, those that another candidate got right first."""
        mine = self.samples[name]
        elsewhere: dict[tuple[str | None, int, int], float] = {}
        for other, samples in self.samples.items():
            for sample in samples if other != name else ():
                elsewhere[sample.key] = max(sample.score, elsewhere.get(sample.key, 0.0))
        best_elsewhere = [elsewhere.get(sample.key, 0.0) for sample in mine]
        worst = sorted(
            (i for i, sample in enumerate(mine) if sample.score < 1),
            key=lambda i: (mine[i].score - best_elsewhere[i], mine[i].score, i),
        )
        return [mine[i] for i in worst[:limit]]


def report_settings(section: EvaluateSection) -> dict[str, Any]:
    """Return the section as a report shows it."""
    unread = {"infer_backend", *ToolSettings.model_fields}
    unread |= set() if section.eval_dataset else _OF_BENCHMARKS
    shown = section.model_dump(mode="json", exclude=unread)
    if section.infer_backend != "pt":
        shown |= {"infer_backend": section.infer_backend, **tool_settings(section)}
    return shown


def summarize(
    samples: Sequence[AnsweredSample],
    metrics: dict[str, Estimate],
    size_bytes: int,
    seconds: float,
    subsets: dict[str, dict[str, dict[str, Estimate]]] | None = None,
) -> CandidateResult:
    """Return a candidate's result: its metrics with what is counted over all its samples."""
    num_failed = sum(sample.error is not None for sample in samples)
    generated = sum(sample.completion_tokens for sample in samples)
    return CandidateResult(
        metrics=metrics,
        coverage=1 - num_failed / len(samples),
        num_failed=num_failed,
        truncated=sum(sample.finish_reason == "length" for sample in samples),
        size_bytes=size_bytes,
        generated_tokens=generated,
        seconds=seconds,
        tokens_per_second=generated / seconds if seconds > 0 else 0.0,
        subsets=subsets or {},
    )


def write_samples(path: Path, samples: Sequence[AnsweredSample]) -> None:
    """Write answered samples as JSON lines."""
    lines = (json.dumps(sample.as_dict(), ensure_ascii=False) + "\n" for sample in samples)
    # A model may emit half a surrogate pair's worth of bytes; the file stays valid UTF-8.
    path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
