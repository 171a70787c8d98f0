"""OpenCompass from our side: start its job, read the files that it and the job write.

Their places are in `job.py`. A benchmark's parts are its subsets.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swiftcore.backends.benchmarks import (
    BenchmarkJob,
    ToolSample,
    ToolScores,
    lacking,
    run_benchmarks,
)
from swiftcore.backends.jobs import Limits
from swiftcore.backends.opencompass import BACKEND
from swiftcore.errors import BackendFailed
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime

# Evaluators name the grade of an answer differently.
_GRADES = ("correct", "is_correct", "cascade_correct")


def run_opencompass(
    job: BenchmarkJob,
    work_dir: Path,
    runtime: Runtime,
    *,
    api_key: str | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> ToolScores:
    """Run benchmarks with OpenCompass and return every sample.

    Its own files stay in `job.out_dir`.

    Raises:
        UsageError: there is no such benchmark, or it needs more than a chat endpoint gives.
        DataError: a benchmark's files are not where the job says.
        BackendMissing: OpenCompass is not installed.
        BackendFailed: it crashed, passed a limit, grades no single answers, or not one question
            was answered.
    """
    version = run_benchmarks(
        BACKEND, job, work_dir, runtime, api_key=api_key, limits=limits, progress=progress
    )
    samples = [
        sample for name in job.datasets for sample in read_benchmark(job.out_dir / name, name)
    ]
    return ToolScores(version, samples, [])


def read_benchmark(folder: Path, name: str) -> list[ToolSample]:
    """Return the samples of one benchmark from the files of a run.

    Raises:
        BackendFailed: there are none, they can't be read, or no question got an answer.
    """
    try:
        found = [_read_part(folder, name, file.name) for file in sorted(folder.glob("told/*.json"))]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as err:
        raise _unreadable(folder, f"{type(err).__name__}: {err}") from err
    samples = [sample for part in found for sample in part]
    if all(sample.error for sample in samples):
        said = samples[0].error if samples else "no file in told/"
        raise _unreadable(folder, f"no question of {name} was answered: {said}")
    return samples


def _read_part(folder: Path, name: str, file: str) -> list[ToolSample]:
    told = _read(folder / "told" / file)
    answers = _read(folder / "predictions/model" / file)
    details = _read(folder / "results/model" / file).get("details")
    if not isinstance(details, list):
        raise ValueError(f"OpenCompass grades {file} as a whole, and no single answer")
    if not len(told) == len(answers) == len(details):
        counts = f"{len(answers)} answers, {len(details)} grades, {len(told)} requests"
        raise ValueError(f"{file}: {counts}")
    part = file.removesuffix(".json")
    return [
        _sample(name, part, row, answers[str(row)], details[row], told[row])
        for row in range(len(told))
    ]


def _sample(
    benchmark: str,
    part: str,
    row: int,
    answer: Mapping[str, Any],
    detail: Mapping[str, Any],
    told: Mapping[str, Any],
) -> ToolSample:
    grades = [detail[name] for name in _GRADES if name in detail]
    if not grades:
        raise ValueError(f"no grade of answer {row} in {part}")
    # Each holds a value for each repetition of the question, which is asked once.
    right = bool(grades[0][0])
    sample = ToolSample(
        benchmark,
        part,
        row,
        prompt=_prompt(answer["origin_prompt"]),
        output=str(answer["prediction"]),
        target=str(answer.get("gold", "")),
        metrics={"accuracy": float(right)},
        finish_reason=told.get("finish_reason") or "stop",
        completion_tokens=told.get("completion_tokens") or 0,
        extracted=str(detail["pred"][0]) if "pred" in detail else None,
        error=told.get("error"),
    )
    return lacking(sample, sample.metrics) if sample.error else sample


def _prompt(written: Any) -> str:
    if isinstance(written, str):
        return written
    return "\n\n".join(str(message["prompt"]) for message in written)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _unreadable(folder: Path, found: str) -> BackendFailed:
    return BackendFailed(
        "OpenCompass left no readable result",
        where=folder,
        found=found,
        expected="answers, grades and requests of the same questions",
        do="the job's log.txt says more; another backend may have the benchmark",
    )
