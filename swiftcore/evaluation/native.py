"""Native evaluation: candidates answer held-out rows with an engine, and the answers are scored.

Nothing is skipped. A step that can't be asked or answered (a bad row, a prompt that is too long, an
engine that fails on it) counts with the scores of an empty answer and lowers the coverage, which
every report shows and the gate checks.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import DataError
from swiftcore.evaluation.agent import agent_step_metrics, react_from_output
from swiftcore.evaluation.answering import Answer, TemplatedEngine, answer_prompts, written_prompt
from swiftcore.evaluation.benchmarks.responding import LocalModel
from swiftcore.evaluation.benchmarks.running import question_digest, run_benchmarks
from swiftcore.evaluation.intervals import Estimate, estimate
from swiftcore.evaluation.overlap import contamination
from swiftcore.evaluation.report import (
    AnsweredSample,
    CandidateResult,
    EvaluationReport,
    report_settings,
    summarize,
)
from swiftcore.evaluation.samples import Sample, rows_digest, samples_of_rows
from swiftcore.generation import SamplingParams
from swiftcore.progress import Progress
from swiftcore.recipe.sections import EvaluateSection
from swiftcore.scores.text import exact_match, numbers_agree, rouge_l, without_thinking

if TYPE_CHECKING:
    from swiftcore.evaluation.benchmarks.planning import PlannedBenchmark
    from swiftcore.evaluation.tools import ToolBenchmarks

# Step metrics by the name they carry in reports; the easy and hard halves of F1 stay out of them.
_REPORTED = {
    "plan_em": "Plan.EM",
    "Act.EM": "Act.EM",
    "HalluRate": "HalluRate",
    "F1": "Avg.F1",
    "Rouge-L": "Rouge-L",
}


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate: a model folder, perhaps with an adapter over it.

    `name` heads its column and names its samples file; `size_bytes` is its size on disk.
    """

    name: str
    model_dir: Path
    adapter_dir: Path | None
    size_bytes: int


def evaluate_candidates(
    section: EvaluateSection,
    candidates: Sequence[Candidate],
    rows: Iterable[Mapping[str, Any]],
    out_dir: Path,
    *,
    load_engine: Callable[[Candidate], TemplatedEngine],
    train_rows: Iterable[Mapping[str, Any]] | None = None,
    benchmarks: "Sequence[PlannedBenchmark]" = (),
    tool: "ToolBenchmarks | None" = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Let every candidate answer the same steps, score them and write the report files.

    Args:
        section: metrics, limits, sampling and the settings of the intervals.
        candidates: models to compare; names must differ and be usable as file names.
        rows: standard rows of the test set; each assistant turn is one step (`samples`).
        out_dir: folder for the files that `report` lists.
        load_engine: makes the engine of one candidate; it is dropped before the next is made.
        train_rows: training rows, to check the test prompts for contamination.
        benchmarks: what is asked beside the rows.
        tool: benchmarks that another tool asks instead.
        progress: hears of every answered step of all candidates.

    Raises:
        DataError: there is no test row, and no benchmark either.
    """
    chosen = list(rows)[: section.eval_limit]
    if not chosen and not benchmarks and tool is None:
        raise DataError(
            "there are no test rows to evaluate",
            where="data.test_dataset",
            found="0 rows",
            do="name a held-out file in data.test_dataset, or drop the evaluate section",
        )
    samples = samples_of_rows(chosen)
    results: dict[str, CandidateResult] = {}
    answered: dict[str, list[AnsweredSample]] = {}
    for position, candidate in enumerate(candidates):
        part = Part(progress, position, len(candidates), candidate.name)
        engine = load_engine(candidate)
        answers, seconds = _answer_all(engine, samples, section, part)
        scored = [_score(s, a, section) for s, a in zip(samples, answers, strict=True)]
        metrics = aggregate(scored, section)
        model = LocalModel(engine, section.eval_batch_size)
        more = run_benchmarks(benchmarks, model, section, part)
        if tool is not None:
            # The server has the model once more; it need not be here as well.
            del engine, model
            more = tool.run(candidate, part)
        answered[candidate.name] = scored + more.samples
        results[candidate.name] = summarize(
            scored + more.samples,
            metrics | more.metrics,
            candidate.size_bytes,
            seconds + more.seconds,
            more.subsets,
        )
    asked = [*chosen, *(question.bare for found in benchmarks for question in found.questions)]
    elsewhere = tool.num_questions if tool else 0
    asked_of_all = [*chosen, *map(question_digest, benchmarks)]
    digest = tool.digest_with(chosen) if tool else rows_digest(asked_of_all)
    described = tool.as_dict() if tool else {found.name: found.as_dict() for found in benchmarks}
    report = EvaluationReport(
        num_rows=len(asked) + elsewhere,
        num_samples=len(samples) + len(asked) - len(chosen) + elsewhere,
        test_digest=digest,
        settings=report_settings(section),
        candidates=results,
        samples=answered,
        contamination=None if train_rows is None else contamination(train_rows, asked).as_dict(),
        benchmarks=described,
    )
    report.write(Path(out_dir))
    return report


@dataclass(frozen=True)
class Part:
    """One candidate's share of the whole progress."""

    whole: Progress | None
    position: int
    num_parts: int
    name: str

    def update(self, done: float, total: float | None, text: str) -> None:
        """Pass news on, counted in candidates."""
        if self.whole is not None:
            share = done / total if total else 0.0
            self.whole.update(self.position + share, self.num_parts, f"{self.name}: {text}")


def _answer_all(
    engine: TemplatedEngine, samples: Sequence[Sample], section: EvaluateSection, progress: Progress
) -> tuple[list[Answer], float]:
    """Return an answer a sample, and the seconds that generation took."""
    prompts = [written_prompt(engine.template, s.prompt_row, s.error) for s in samples]
    params = SamplingParams(
        max_new_tokens=section.max_new_tokens, temperature=section.temperature, seed=section.seed
    )
    started = time.perf_counter()
    answers = answer_prompts(engine, prompts, params, section.eval_batch_size, progress)
    return answers, time.perf_counter() - started


def _score(sample: Sample, answer: Answer, section: EvaluateSection) -> AnsweredSample:
    completion, output = answer.completion, answer.text
    return AnsweredSample(
        row=sample.row_index,
        step=sample.step,
        prompt=answer.prompt,
        output=output,
        target=sample.target,
        metrics=sample_metrics(sample, output, section.metrics),
        finish_reason=answer.finish_reason,
        completion_tokens=completion.completion_tokens if completion else 0,
        error=answer.error,
    )


def sample_metrics(sample: Sample, output: str, families: Sequence[str]) -> dict[str, float]:
    """Return the scores of one output by the metric families of `evaluate.metrics`.

    Thinking before the answer, in output or target, is not part of what is compared.
    """
    metrics: dict[str, float] = {}
    if "agent" in families:
        step = agent_step_metrics(react_from_output(output), sample.target_react, sample.tools)
        metrics |= {shown: float(step[key]) for key, shown in _REPORTED.items() if key in step}
    answer, target = without_thinking(output), without_thinking(sample.target)
    if "rouge" in families:
        metrics["rouge_l"] = rouge_l(answer, target)
    if "exact_match" in families:
        metrics["exact_match"] = exact_match(answer, target)
    if "final_number" in families:
        agrees = numbers_agree(answer, target)
        if agrees is not None:
            metrics["final_number"] = agrees
    return metrics


def aggregate(scored: Sequence[AnsweredSample], section: EvaluateSection) -> dict[str, Estimate]:
    """Return each metric's mean over the steps it applies to, with n and interval."""
    values: dict[str, list[float]] = {}
    for sample in scored:
        for name, value in sample.metrics.items():
            values.setdefault(name, []).append(value)
    ordered = [name for name in _REPORTED.values() if name in values]
    ordered += [name for name in values if name not in ordered]
    return {
        name: estimate(
            values[name],
            confidence=section.confidence,
            num_resamples=section.num_bootstrap,
            seed=section.seed,
        )
        for name in ordered
    }
