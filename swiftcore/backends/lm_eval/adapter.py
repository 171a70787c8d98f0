"""lm-eval from our side: start its job, read the samples that it writes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from swiftcore.backends.benchmarks import (
    BenchmarkJob,
    ToolSample,
    ToolScores,
    run_benchmarks,
)
from swiftcore.backends.jobs import Limits
from swiftcore.backends.lm_eval import BACKEND
from swiftcore.errors import BackendFailed
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime

_UNSEEN = "lm-eval keeps neither lengths nor finish reasons: cut off answers are not counted"


def run_lm_eval(
    job: BenchmarkJob,
    work_dir: Path,
    runtime: Runtime,
    *,
    api_key: str | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> ToolScores:
    """Run tasks with lm-eval and return every sample; its own files stay in `job.out_dir`.

    Raises:
        UsageError: there is no such task, or it needs what a chat endpoint does not give.
        DataError: a task's files are not where the job says.
        BackendMissing: lm-eval is not installed.
        BackendFailed: it crashed or passed a limit, or the endpoint failed again and again.
    """
    version = run_benchmarks(
        BACKEND, job, work_dir, runtime, api_key=api_key, limits=limits, progress=progress
    )
    path = job.out_dir / "samples.jsonl"
    try:
        with path.open(encoding="utf-8") as stream:
            samples = read_samples(map(json.loads, stream))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as err:
        raise BackendFailed(
            "lm-eval left no readable samples",
            where=path,
            found=f"{type(err).__name__}: {err}",
            expected="one line for each document and filter",
        ) from err
    return ToolScores(version, samples, [_UNSEEN])


def read_samples(lines: Iterable[Mapping[str, Any]]) -> list[ToolSample]:
    """Return a sample a document; its filters, each a line of its own, become metrics.

    A metric is named as lm-eval prints it, `exact_match,strict-match`, and without the filter
    where that is `none`.
    """
    found: dict[tuple[str, str, int], ToolSample] = {}
    for line in lines:
        key = line["benchmark"], line["task"], line["doc_id"]
        sample = found.setdefault(key, _sample(*key, line))
        suffix = "" if line["filter"] == "none" else f",{line['filter']}"
        for name in line["metrics"]:
            value = line[name]
            # What is no number is material for a figure over all documents, such as BLEU.
            if isinstance(value, bool | int | float):
                sample.metrics[name + suffix] = float(value)
    return list(found.values())


def _sample(benchmark: str, task: str, row: int, line: Mapping[str, Any]) -> ToolSample:
    return ToolSample(
        benchmark,
        task,
        row,
        prompt=_prompt(line["arguments"][0][0]),
        output=str(line["resps"][0][0]),
        target=str(line["target"]),
        extracted=str(line["filtered_resps"][0]),
    )


def _prompt(written: Any) -> str:
    """Return the messages of a request as text; lm-eval writes them as JSON in a list."""
    text = written[0] if isinstance(written, list) else str(written)
    try:
        messages = json.loads(text)
        return "\n\n".join(str(message["content"]) for message in messages)
    except (ValueError, TypeError, KeyError):
        return text
