"""Native evaluation: candidates answer held-out rows with an engine, and the answers are scored.

Nothing is skipped. A step that can't be asked or answered (a bad row, a prompt that is too long, an
engine that fails on it) counts with the scores of an empty answer and lowers the coverage, which
every report shows and the gate checks.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from swiftcore.errors import Cancelled, DataError, EnvironmentMissing, SwiftError, TransientError
from swiftcore.evaluation.agent import agent_step_metrics, react_from_output
from swiftcore.evaluation.intervals import Estimate, estimate
from swiftcore.evaluation.overlap import contamination
from swiftcore.evaluation.report import AnsweredSample, CandidateResult, EvaluationReport
from swiftcore.evaluation.samples import Sample, rows_digest, samples_of_rows
from swiftcore.generation import Completion, SamplingParams
from swiftcore.progress import Progress
from swiftcore.recipe.sections import EvaluateSection
from swiftcore.scores.text import exact_match, numbers_agree, rouge_l, without_thinking

# Step metrics by the name they carry in reports; the easy and hard halves of F1 stay out of them.
_REPORTED = {
    "plan_em": "Plan.EM",
    "Act.EM": "Act.EM",
    "HalluRate": "HalluRate",
    "F1": "Avg.F1",
    "Rouge-L": "Rouge-L",
}


class Encoded(Protocol):
    """A prompt as tokens and as the text they stand for."""

    @property
    def input_ids(self) -> list[int]:
        """Token ids of the prompt."""
        ...

    @property
    def text(self) -> str:
        """Exact text of the tokens."""
        ...


class PromptTemplate(Protocol):
    """Writes a row as a prompt; `swiftcore.template.Template` is one."""

    def encode(self, row: Mapping[str, Any], mode: Any = ...) -> Any:
        """Return the row's `Encoded` prompt in mode "infer"."""
        ...


class TemplatedEngine(Protocol):
    """An engine together with the template its model was trained with."""

    @property
    def template(self) -> PromptTemplate:
        """The template that writes prompts."""
        ...

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        batch_size: int,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """Answer all prompts, in order."""
        ...


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate: a model folder, perhaps with an adapter over it.

    `name` heads its column and names its samples file; `size_bytes` is its size on disk.
    """

    name: str
    model_dir: Path
    adapter_dir: Path | None
    size_bytes: int


@dataclass(frozen=True)
class _Answer:
    """A prompt and its completion, or why there is none."""

    prompt: str
    completion: Completion | None
    error: str | None


def evaluate_candidates(
    section: EvaluateSection,
    candidates: Sequence[Candidate],
    rows: Iterable[Mapping[str, Any]],
    out_dir: Path,
    *,
    load_engine: Callable[[Candidate], TemplatedEngine],
    train_rows: Iterable[Mapping[str, Any]] | None = None,
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
        progress: hears of every answered step of all candidates.

    Raises:
        DataError: there is no test row.
    """
    chosen = list(rows)[: section.eval_limit]
    if not chosen:
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
        part = _Part(progress, position, len(candidates), candidate.name)
        answers, seconds = _answer_all(load_engine(candidate), samples, section, part)
        scored = [_score(s, a, section) for s, a in zip(samples, answers, strict=True)]
        answered[candidate.name] = scored
        results[candidate.name] = _summarize(scored, candidate, section, seconds)
    report = EvaluationReport(
        num_rows=len(chosen),
        num_samples=len(samples),
        test_digest=rows_digest(chosen),
        settings=section.model_dump(mode="json"),
        candidates=results,
        samples=answered,
        contamination=None if train_rows is None else contamination(train_rows, chosen).as_dict(),
    )
    report.write(Path(out_dir))
    return report


@dataclass(frozen=True)
class _Part:
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
) -> tuple[list[_Answer], float]:
    """Return an answer a sample, and the seconds that generation took."""
    prompts = [_prompt(engine.template, sample) for sample in samples]
    askable = [ids for ids, _, error in prompts if error is None]
    params = SamplingParams(
        max_new_tokens=section.max_new_tokens, temperature=section.temperature, seed=section.seed
    )
    started = time.perf_counter()
    outcomes = iter(_generate(engine, askable, params, section.eval_batch_size, progress))
    seconds = time.perf_counter() - started
    answers = []
    for _, text, error in prompts:
        outcome = error if error is not None else next(outcomes)
        failed = isinstance(outcome, str)
        answers.append(_Answer(text, None if failed else outcome, outcome if failed else None))
    return answers, seconds


def _prompt(template: PromptTemplate, sample: Sample) -> tuple[list[int], str, str | None]:
    if sample.error is not None:
        return [], "", sample.error
    try:
        encoded = template.encode(sample.prompt_row, mode="infer")
        return list(encoded.input_ids), encoded.text or "", None
    except Exception as err:
        _raise_unless_of_this_row(err)
        return [], "", _described(err)


def _generate(
    engine: TemplatedEngine,
    prompts: Sequence[list[int]],
    params: SamplingParams,
    batch_size: int,
    progress: Progress,
) -> list[Completion | str]:
    """Answer prompts; where that fails, halve the list until the guilty prompt stands alone."""
    if not prompts:
        return []
    try:
        return list(engine.generate(prompts, params, batch_size=batch_size, progress=progress))
    except Exception as err:
        _raise_unless_of_this_row(err)
        if len(prompts) == 1:
            return [_described(err)]
    middle = len(prompts) // 2
    return [
        outcome
        for half in (prompts[:middle], prompts[middle:])
        for outcome in _generate(engine, half, params, batch_size, progress)
    ]


def _raise_unless_of_this_row(err: Exception) -> None:
    """Let errors through that say nothing about a row: they would fail every other one too."""
    if isinstance(err, Cancelled | EnvironmentMissing | TransientError | MemoryError):
        raise err


def _described(err: Exception) -> str:
    """Put an error in one line, without the position in a batch that only this call knew."""
    if isinstance(err, SwiftError):
        found = f" (found {err.found})" if err.found else ""
        return f"{type(err).__name__}: {err.message}{found}"
    return f"{type(err).__name__}: {err}"


def _score(sample: Sample, answer: _Answer, section: EvaluateSection) -> AnsweredSample:
    completion = answer.completion
    output = completion.text if completion else ""
    return AnsweredSample(
        row=sample.row_index,
        step=sample.step,
        prompt=answer.prompt,
        output=output,
        target=sample.target,
        metrics=sample_metrics(sample, output, section.metrics),
        finish_reason=completion.finish_reason if completion else "error",
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


def _summarize(
    scored: Sequence[AnsweredSample],
    candidate: Candidate,
    section: EvaluateSection,
    seconds: float,
) -> CandidateResult:
    num_failed = sum(sample.error is not None for sample in scored)
    generated = sum(sample.completion_tokens for sample in scored)
    return CandidateResult(
        metrics=aggregate(scored, section),
        coverage=1 - num_failed / len(scored),
        num_failed=num_failed,
        truncated=sum(sample.finish_reason == "length" for sample in scored),
        size_bytes=candidate.size_bytes,
        generated_tokens=generated,
        seconds=seconds,
        tokens_per_second=generated / seconds if seconds > 0 else 0.0,
    )
