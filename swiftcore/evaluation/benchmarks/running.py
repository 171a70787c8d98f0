"""A model asked the questions of benchmarks, and its answers graded."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.planning import PlannedBenchmark
from swiftcore.evaluation.benchmarks.question import Grade, Question
from swiftcore.evaluation.benchmarks.responding import Responder
from swiftcore.evaluation.intervals import Estimate, estimate, weighted_estimate
from swiftcore.evaluation.report import AnsweredSample
from swiftcore.progress import Progress
from swiftcore.recipe.sections import EvaluateSection
from swiftcore.scores.text import without_thinking

# Programs graded at a time; each may take a core.
_GRADERS = 2


@dataclass
class BenchmarkScores:
    """What one model achieved: samples, figures by `benchmark/metric`, figures of the parts."""

    samples: list[AnsweredSample] = field(default_factory=list)
    metrics: dict[str, Estimate] = field(default_factory=dict)
    subsets: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    seconds: float = 0.0


def run_benchmarks(
    benchmarks: Sequence[PlannedBenchmark],
    responder: Responder,
    section: EvaluateSection,
    progress: Progress,
) -> BenchmarkScores:
    """Ask a model all questions and grade its answers; seconds are those of answering alone."""
    scores = BenchmarkScores()
    for planned in benchmarks:
        started = time.perf_counter()
        answers = _answers(planned, responder, progress)
        scores.seconds += time.perf_counter() - started
        samples = _graded(planned, answers)
        scores.samples += samples
        figures = _figures(planned, samples, section)
        scores.metrics |= {f"{planned.name}/{name}": found for name, found in figures.items()}
        parts = list(dict.fromkeys(question.subset for question in planned.questions))
        if len(parts) > 1:
            scores.subsets[planned.name] = {
                part: _figures(planned, [s for s in samples if s.subset == part], section)
                for part in parts
            }
    return scores


def question_digest(planned: PlannedBenchmark) -> dict[str, str]:
    """Return a benchmark as one row of what a report's test set is known by."""
    return {planned.name: planned.digest}


def _answers(planned: PlannedBenchmark, responder: Responder, progress: Progress) -> list[Answer]:
    questions = planned.questions
    rows = [question.row for question in questions]
    if planned.benchmark.scores_text:
        return responder.score_texts([question.text for question in questions], progress)
    if planned.by_likelihood:
        return responder.compare(rows, [question.choices for question in questions], progress)
    return responder.answer(rows, planned.params, progress)


def _graded(planned: PlannedBenchmark, answers: Sequence[Answer]) -> list[AnsweredSample]:
    def grade(place: int) -> AnsweredSample:
        question, answer = planned.questions[place], answers[place]
        return _sample(planned, place, question, answer, graded(planned, question, answer))

    return list(_mapped(grade, range(len(answers)), parallel=planned.benchmark.slow))


def _mapped(
    work: Callable[[int], AnsweredSample], places: range, *, parallel: bool
) -> Iterable[AnsweredSample]:
    if not parallel:
        return map(work, places)
    with ThreadPoolExecutor(_GRADERS) as pool:
        return list(pool.map(work, places))


def graded(planned: PlannedBenchmark, question: Question, answer: Answer) -> Grade:
    """Grade an answer; one that failed, was cut off or is empty has 0 everywhere."""
    text = without_thinking(answer.text)
    note = None
    if answer.error is not None:
        note = "not answered"
    elif answer.finish_reason == "length":
        note = "cut off at the longest answer"
    elif answer.log_likelihoods is None and not text and not answer.calls:
        note = "empty answer"
    if note is None:
        return planned.benchmark.grade(question, answer, text)
    if planned.benchmark.scores_text:
        return Grade({}, note=note)
    wrong = dict.fromkeys(planned.benchmark.metrics, 0.0)
    return Grade(wrong, note=note, weights=question.weights)


def _sample(
    planned: PlannedBenchmark, place: int, question: Question, answer: Answer, grade: Grade
) -> AnsweredSample:
    return AnsweredSample(
        row=place,
        step=0,
        prompt=answer.prompt,
        output=answer.text or _written_calls(answer),
        target=question.target,
        metrics=grade.metrics,
        finish_reason=answer.finish_reason,
        completion_tokens=answer.completion.completion_tokens if answer.completion else 0,
        error=answer.error,
        benchmark=planned.name,
        subset=question.subset,
        extracted=grade.extracted,
        note=grade.note,
        weights=grade.weights,
    )


def _written_calls(answer: Answer) -> str:
    return "\n".join(f"{call.name}({call.arguments})" for call in answer.calls or ())


def _figures(
    planned: PlannedBenchmark, samples: Sequence[AnsweredSample], section: EvaluateSection
) -> dict[str, Estimate]:
    settings = {
        "confidence": section.confidence,
        "num_resamples": section.num_bootstrap,
        "seed": section.seed,
    }
    figures: dict[str, Estimate] = {}
    for name in planned.benchmark.metrics:
        having = [sample for sample in samples if name in sample.metrics]
        values = [sample.metrics[name] for sample in having]
        weights = [(sample.weights or {}).get(name, 1.0) for sample in having]
        if not values:
            continue
        if all(weight == 1 for weight in weights):
            figures[name] = estimate(values, **settings)
        else:
            figures[name] = weighted_estimate(values, weights, **settings)
    return figures | planned.benchmark.derive(figures)
