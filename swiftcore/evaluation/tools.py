"""Benchmarks that another tool runs against an endpoint, in the form of our own reports.

The tool asks and scores in its own environment (`swiftcore.backends`); its files are kept. A
question without an answer has the worst score of each metric and lowers the coverage, as natively.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import DigestCache
from swiftcore.artifacts.digests import folder_digest, sha256_file
from swiftcore.backends.benchmarks import BenchmarkJob, ToolSample, ToolScores
from swiftcore.evaluation.benchmarks.running import BenchmarkScores
from swiftcore.evaluation.intervals import Estimate, estimate
from swiftcore.evaluation.native import Candidate
from swiftcore.evaluation.report import (
    AnsweredSample,
    EvaluationReport,
    report_settings,
    summarize,
)
from swiftcore.evaluation.samples import rows_digest
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import EvaluateSection, Runtime

if TYPE_CHECKING:
    from swiftcore.backends.jobs import Limits

# Benchmarks have answers of any length; this is EvalScope's habit for short ones.
_MAX_TOKENS = 512
# For a server whose client says how long an answer may be; the model's own limit still holds.
UNLIMITED_TOKENS = 1_000_000
_OWN_FIELDS = ("max_tokens", "temperature", "seed")


@dataclass(frozen=True)
class ServedModel:
    """A model behind an OpenAI-compatible endpoint, and how patiently it is asked.

    Args:
        url: ends in /v1.
        name: of the model there.
        api_key: sent as a bearer token.
        num_requests: sent at a time; None takes `evaluate.eval_batch_size`.
        timeout_seconds: longest wait for one answer.
        retries: further attempts of a request.
    """

    url: str
    name: str
    api_key: str | None = None
    num_requests: int | None = None
    timeout_seconds: float = 300.0
    retries: int = 2


class ToolBenchmarks:
    """A section's benchmarks, run by the tool it names for one candidate after another.

    Args:
        section: `eval_backend`, `eval_dataset` and what belongs to them, places filled in.
        serve: serves a candidate for the time of a `with` block.
        work_dir: for orders and logs of jobs.
        raw_dir: for the tool's own files, a folder a candidate.
        runtime: where backends are.
        files: digests of the benchmarks' own files.
    """

    def __init__(
        self,
        section: EvaluateSection,
        serve: Callable[[Candidate], AbstractContextManager[ServedModel]],
        work_dir: Path,
        raw_dir: Path,
        runtime: Runtime,
        files: Mapping[str, str],
    ) -> None:
        self._section = section
        self._serve = serve
        self._work_dir = work_dir
        self._raw_dir = raw_dir
        self._runtime = runtime
        self._num_questions: dict[str, int] = {}
        self._notes: list[str] = []
        self.digest = tool_digest(section, files)

    @property
    def num_questions(self) -> int:
        """How many questions each candidate was asked."""
        return sum(self._num_questions.values())

    def digest_with(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return the digest that two reports share when they asked the same, test rows included."""
        return rows_digest([*rows, {"tool": self.digest}])

    def run(self, candidate: Candidate, progress: Progress) -> BenchmarkScores:
        """Serve a candidate and let the tool question it."""
        raw_dir = self._raw_dir / candidate.name
        with self._serve(candidate) as served:
            scores, notes = run_tool(
                self._section,
                served,
                self._work_dir / candidate.name,
                raw_dir,
                self._runtime,
                progress=progress,
            )
        self._num_questions = dict(Counter(str(sample.benchmark) for sample in scores.samples))
        self._notes = list(dict.fromkeys([*self._notes, *notes]))
        return scores

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return what report.json says about each benchmark."""
        tool = {"backend": self._section.eval_backend, "digest": self.digest}
        return {
            name: {"num_questions": count, **tool, "notes": self._notes}
            for name, count in self._num_questions.items()
        }


def run_tool(
    section: EvaluateSection,
    served: ServedModel,
    work_dir: Path,
    raw_dir: Path,
    runtime: Runtime,
    *,
    limits: "Limits | None" = None,
    progress: Progress | None = None,
) -> tuple[BenchmarkScores, list[str]]:
    """Run a section's benchmarks with the tool it names; return scores and what they lack.

    Args:
        section: `eval_backend`, `eval_dataset` and what belongs to them.
        served: who answers.
        work_dir: for the job's order and log.
        raw_dir: for the tool's own files.
        runtime: where backends are.
        limits: time and memory of the whole job.
        progress: hears of each benchmark.

    Raises:
        BackendMissing: the tool is not installed.
        BackendFailed: it crashed, or the endpoint answered nothing.
    """
    job = benchmark_job(section, served, raw_dir)
    started = time.perf_counter()
    found = _runner(section.eval_backend)(
        job, work_dir, runtime, api_key=served.api_key, limits=limits, progress=progress
    )
    return scores_of(found, section, time.perf_counter() - started), found.notes


def evaluate_served(
    section: EvaluateSection,
    served: ServedModel,
    name: str,
    work_dir: Path,
    runtime: Runtime,
    *,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Let a section's tool question an endpoint, and return the report; nothing is written yet.

    Args:
        section: `eval_backend`, `eval_dataset` and what belongs to them.
        served: who answers.
        name: of the one candidate in the report.
        work_dir: for the job; the tool's own files are in `raw` below it.
        runtime: where backends are.
        progress: hears of each benchmark.

    Raises:
        BackendMissing: the tool is not installed.
        BackendFailed: it crashed, or the endpoint answered nothing.
    """
    files = {
        benchmark: _digest_of(Path(settings["local_path"]))
        for benchmark, settings in section.eval_dataset_args.items()
        if "local_path" in settings and Path(settings["local_path"]).exists()
    }
    tool = ToolBenchmarks(
        section, lambda _: nullcontext(served), work_dir, work_dir / "raw", runtime, files
    )
    scores = tool.run(Candidate(name, Path(), None, 0), progress or Silent())
    result = summarize(scores.samples, scores.metrics, 0, scores.seconds, scores.subsets)
    return EvaluationReport(
        num_rows=tool.num_questions,
        num_samples=tool.num_questions,
        test_digest=tool.digest_with([]),
        settings=report_settings(section),
        candidates={name: result},
        samples={name: scores.samples},
        benchmarks=tool.as_dict(),
    )


def _digest_of(place: Path) -> str:
    return sha256_file(place) if place.is_file() else folder_digest(place, DigestCache(None))


def benchmark_job(section: EvaluateSection, served: ServedModel, raw_dir: Path) -> BenchmarkJob:
    """Return the job that a section asks of a tool."""
    given = dict(section.eval_generation_config or {})
    temperature = given.get("temperature")
    return BenchmarkJob(
        model=served.name,
        api_url=served.url.rstrip("/"),
        datasets={name: section.eval_dataset_args.get(name, {}) for name in section.eval_dataset},
        out_dir=raw_dir.absolute(),
        limit=section.eval_limit,
        num_requests=served.num_requests or section.eval_batch_size,
        timeout_seconds=served.timeout_seconds,
        retries=served.retries,
        max_tokens=given.get("max_tokens") or _MAX_TOKENS,
        temperature=section.temperature if temperature is None else temperature,
        seed=section.seed if given.get("seed") is None else given["seed"],
        sampling={key: value for key, value in given.items() if key not in _OWN_FIELDS},
    )


def scores_of(found: ToolScores, section: EvaluateSection, seconds: float) -> BenchmarkScores:
    """Return a tool's samples and their figures in our form, named `benchmark/metric`."""
    scores = BenchmarkScores(seconds=seconds)
    for benchmark in dict.fromkeys(sample.benchmark for sample in found.samples):
        asked = [sample for sample in found.samples if sample.benchmark == benchmark]
        samples = [_answered(place, sample) for place, sample in enumerate(asked)]
        scores.samples += samples
        figures = _figures(samples, section)
        scores.metrics |= {f"{benchmark}/{name}": value for name, value in figures.items()}
        parts = list(dict.fromkeys(sample.subset for sample in asked))
        if len(parts) > 1:
            scores.subsets[benchmark] = {
                part: _figures([s for s in samples if s.subset == part], section) for part in parts
            }
    return scores


def tool_digest(section: EvaluateSection, files: Mapping[str, str]) -> str:
    """Return what two reports share that asked a tool the same.

    Args:
        section: the tool, its benchmarks and their settings.
        files: digests of the benchmarks' own files, where the user named them.
    """
    settings = {
        name: {k: v for k, v in args.items() if k != "local_path"}
        for name, args in section.eval_dataset_args.items()
    }
    asked: list[Any] = [section.eval_backend, section.eval_dataset, settings, section.eval_limit]
    written = json.dumps([*asked, dict(files)], sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()


def _runner(backend: str) -> Callable[..., ToolScores]:
    if backend == "EvalScope":
        from swiftcore.backends.evalscope.adapter import run_evalscope

        return run_evalscope
    if backend == "OpenCompass":
        from swiftcore.backends.opencompass.adapter import run_opencompass

        return run_opencompass
    from swiftcore.backends.lm_eval.adapter import run_lm_eval

    return run_lm_eval


def _answered(place: int, sample: ToolSample) -> AnsweredSample:
    return AnsweredSample(
        # Tools count the rows of each part from 0.
        row=place,
        step=0,
        prompt=sample.prompt,
        output=sample.output,
        target=sample.target,
        metrics=dict(sample.metrics),
        finish_reason=sample.finish_reason,
        completion_tokens=sample.completion_tokens,
        error=sample.error,
        benchmark=sample.benchmark,
        subset=sample.subset,
        extracted=None if sample.extracted == sample.output else sample.extracted,
        note=None if sample.error is None else "not answered",
    )


def _figures(samples: Sequence[AnsweredSample], section: EvaluateSection) -> dict[str, Estimate]:
    names = dict.fromkeys(name for sample in samples for name in sample.metrics)
    return {
        name: estimate(
            [sample.metrics[name] for sample in samples if name in sample.metrics],
            confidence=section.confidence,
            num_resamples=section.num_bootstrap,
            seed=section.seed,
        )
        for name in names
    }
