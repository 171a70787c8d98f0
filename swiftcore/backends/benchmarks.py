"""What evaluation tools are asked and what they bring home, whichever tool it is."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from swiftcore.backends.environment import open_environment
from swiftcore.backends.jobs import Limits, run_job
from swiftcore.backends.spec import Backend
from swiftcore.errors import DataError
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime

# How a job script gets the endpoint's key: not through job.json, which is kept.
API_KEY_VARIABLE = "BACKEND_API_KEY"


class BenchmarkJob(BaseModel):
    """Benchmarks to run against an OpenAI-compatible endpoint.

    `datasets` maps names that the tool knows to its own settings for them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="name that the endpoint knows")
    api_url: str = Field(description="address, up to and with /v1")
    datasets: dict[str, dict[str, Any]] = Field(min_length=1)
    out_dir: Path = Field(description="where the tool keeps its own files")
    limit: int | None = Field(default=None, ge=1, description="first rows of each part")
    num_requests: int = Field(default=8, ge=1, description="requests sent at a time")
    max_tokens: int = Field(default=512, ge=1, description="longest answer")
    temperature: float = Field(default=0.0, ge=0)
    seed: int = 42
    sampling: dict[str, Any] = Field(
        default_factory=dict,
        description="top_p, top_k, repetition_penalty, stop, where they differ",
    )
    timeout_seconds: float = Field(default=300.0, gt=0, description="longest wait for one answer")
    retries: int = Field(default=2, ge=0, description="further attempts of a failed request")


@dataclass(frozen=True)
class ToolSample:
    """One question as a tool asked and scored it; without an answer there is an `error`."""

    benchmark: str
    subset: str
    row: int
    prompt: str = ""
    output: str = ""
    target: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    finish_reason: str = "stop"
    completion_tokens: int = 0
    extracted: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ToolScores:
    """All samples, and what the tool could not do (`notes`)."""

    version: str
    samples: list[ToolSample]
    notes: list[str]


class _Done(BaseModel):
    """What a tool's job says at its end; the scores are in the tool's files."""

    version: str


def run_benchmarks(
    backend: Backend,
    job: BenchmarkJob,
    work_dir: Path,
    runtime: Runtime,
    *,
    api_key: str | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> str:
    """Let a tool write its files into `job.out_dir` and return the tool's version.

    Files of an earlier run are removed: tools take answers from them.

    Raises:
        DataError: a benchmark's files are not where the job says.
        BackendMissing: the tool is not installed.
        BackendFailed: it crashed or passed a limit.
    """
    _require_files(job.datasets)
    shutil.rmtree(job.out_dir, ignore_errors=True)
    done = run_job(
        open_environment(backend, runtime),
        job,
        _Done,
        work_dir,
        limits=limits,
        progress=progress,
        variables=_key_variables(api_key),
        install=runtime.install_backends,
    )
    return done.version


def _key_variables(api_key: str | None) -> dict[str, str]:
    """Return the environment variables that carry an endpoint's key to a job."""
    return {API_KEY_VARIABLE: api_key or "EMPTY", "DO_NOT_TRACK": "1", **_no_proxy()}


def _no_proxy() -> dict[str, str]:
    """Keep requests to this machine away from a proxy."""
    named = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    local = ",".join(part for part in (named, "127.0.0.1,localhost") if part)
    return {"NO_PROXY": local, "no_proxy": local}


def _require_files(datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """Make sure that the places the user named have files, before a tool looks for a hub.

    Raises:
        DataError: a `local_path` is missing or empty.
    """
    for name, settings in datasets.items():
        if "local_path" not in settings:
            continue
        path = Path(settings["local_path"])
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            raise DataError(
                f"the files of the benchmark {name} are not there",
                where=f"eval_dataset_args.{name}.local_path",
                found=f"{path} is {'empty' if path.exists() else 'missing'}",
                expected="the benchmark's files, as the tool wants them",
                do="correct the path, or leave it out to let the tool fetch the benchmark",
            )


def lacking(sample: ToolSample, metrics: Mapping[str, float]) -> ToolSample:
    """Return a sample that failed with the worst value of each metric of its benchmark."""
    return ToolSample(
        sample.benchmark,
        sample.subset,
        sample.row,
        metrics=dict.fromkeys(metrics, 0.0),
        finish_reason="error",
        error=sample.error,
    )
