"""EvalScope from our side: start its job, read the files that it writes.

<out>/<benchmark>/reports/<model>/<benchmark>.json               counts of each subset
<out>/<benchmark>/reviews/<model>/<benchmark>_<subset>.jsonl     scores of each answer
<out>/<benchmark>/predictions/<model>/<benchmark>_<subset>.jsonl the answers
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from swiftcore.backends.benchmarks import (
    BenchmarkJob,
    ToolSample,
    ToolScores,
    lacking,
    run_benchmarks,
)
from swiftcore.backends.evalscope import BACKEND
from swiftcore.backends.jobs import Limits
from swiftcore.errors import BackendFailed
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime

_TOLD_CHARACTERS = 200


def run_evalscope(
    job: BenchmarkJob,
    work_dir: Path,
    runtime: Runtime,
    *,
    api_key: str | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> ToolScores:
    """Run benchmarks with EvalScope and return every sample.

    Its own files stay in `job.out_dir`.

    Raises:
        DataError: a benchmark's files are not where the job says.
        BackendMissing: EvalScope is not installed.
        BackendFailed: it crashed, passed a limit, or not one question was answered.
    """
    version = run_benchmarks(
        BACKEND, job, work_dir, runtime, api_key=api_key, limits=limits, progress=progress
    )
    samples: list[ToolSample] = []
    notes: list[str] = []
    for name in job.datasets:
        found, said = read_benchmark(job.out_dir / name, name)
        samples += found
        notes += said
    return ToolScores(version, samples, notes)


def read_benchmark(folder: Path, name: str) -> tuple[list[ToolSample], list[str]]:
    """Return the samples of one benchmark from EvalScope's files, and notes on what they lack.

    Raises:
        BackendFailed: there is no report, or its files are not of the expected form.
    """
    try:
        return _read_benchmark(folder, name)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as err:
        raise BackendFailed(
            f"EvalScope left no readable result of {name}",
            where=folder,
            found=f"{type(err).__name__}: {err}",
            expected="reports, reviews and predictions of the benchmark",
            do="see logs/eval_log.log there: the endpoint may have answered nothing",
        ) from err


def _read_benchmark(folder: Path, name: str) -> tuple[list[ToolSample], list[str]]:
    report = json.loads(next(folder.glob(f"reports/*/{name}.json")).read_bytes())
    samples: list[ToolSample] = []
    broken: dict[str, str] = {}
    for subset, counts in report["execution_summary"]["subsets"].items():
        answers = {line["index"]: line for line in _lines(folder, "predictions", name, subset)}
        found: dict[int, ToolSample] = {}
        for review in _lines(folder, "reviews", name, subset):
            index = review["index"]
            broken |= review["sample_score"]["score"]["metadata"].get("metric_errors", {})
            found[index] = _sample(name, subset, review, answers[index])
        samples += _complete(name, subset, found, counts["requested"])
    kept = [_without(sample, broken) for sample in samples]
    return kept, [
        f"EvalScope could not compute {metric} of {name}: {_shortened(said)}"
        for metric, said in broken.items()
    ]


def _shortened(said: str) -> str:
    return " ".join(said.replace("*", "").split())[:_TOLD_CHARACTERS]


def _lines(folder: Path, kind: str, name: str, subset: str) -> Iterator[dict[str, Any]]:
    for path in folder.glob(f"{kind}/*/{name}_{subset}.jsonl"):
        with path.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)


def _sample(
    name: str, subset: str, review: Mapping[str, Any], answer: Mapping[str, Any]
) -> ToolSample:
    score = review["sample_score"]["score"]
    output = answer["model_output"]
    asked = [turn for turn in review["messages"] if turn["role"] != "assistant"]
    target = review["target"]
    return ToolSample(
        name,
        subset,
        review["index"],
        prompt="\n\n".join(str(turn["content"]) for turn in asked),
        output=score["prediction"] or "",
        target=target if isinstance(target, str) else "\n".join(map(str, target)),
        metrics={metric: float(value) for metric, value in score["value"].items()},
        finish_reason="length" if _cut_off(output["choices"][0]["stop_reason"]) else "stop",
        completion_tokens=(output.get("usage") or {}).get("output_tokens") or 0,
        extracted=score["extracted_prediction"],
    )


def _cut_off(reason: str) -> bool:
    return reason in ("length", "max_tokens", "model_length")


def _complete(
    name: str, subset: str, found: Mapping[int, ToolSample], requested: int
) -> list[ToolSample]:
    """Return the samples in order, with one that failed for each question without an answer."""
    if not found:
        raise ValueError(f"no question of {subset} was answered")
    metrics = next(iter(found.values())).metrics
    missing = requested - len(found)
    gaps = [row for row in range(max(requested, *found) + 1) if row not in found][:missing]
    failed = [
        lacking(ToolSample(name, subset, row, error="no answer from the endpoint"), metrics)
        for row in gaps
    ]
    return sorted([*found.values(), *failed], key=lambda sample: sample.row)


def _without(sample: ToolSample, broken: Mapping[str, str]) -> ToolSample:
    """Drop metrics that EvalScope writes as 0 when it could not compute them."""
    families = tuple(name.lower() for name in broken)
    if not families:
        return sample
    kept = {k: v for k, v in sample.metrics.items() if not k.lower().startswith(families)}
    return replace(sample, metrics=kept)
