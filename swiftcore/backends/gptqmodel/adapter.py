"""The typed orders and answers of GPTQModel's job."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from swiftcore.backends.environment import open_environment
from swiftcore.backends.gptqmodel import BACKEND
from swiftcore.backends.jobs import Answer, run_job
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime


class _Job(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    out: Path
    device: str


class QuantizeJob(_Job):
    """What to quantize; `rows` are token ids."""

    task: Literal["quantize"] = "quantize"
    method: Literal["gptq", "awq"]
    bits: int
    group_size: int
    rows: list[list[int]]
    batch_size: int


class Quantized(BaseModel):
    """What did it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str


class CompareJob(_Job):
    """Two model folders, rows with `input_ids` and `labels`, and the file that measures."""

    task: Literal["compare"] = "compare"
    rows: list[dict[str, list[int]]]
    measuring_code: Path


class ScoreFields(BaseModel):
    """Fields of `swiftcore.export.quality.Score`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: float
    loss: float
    tokens_per_second: float


class ComparisonFields(BaseModel):
    """Fields of `swiftcore.export.quality.Comparison`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unquantized: ScoreFields
    quantized: ScoreFields
    kl_divergence: float
    num_labels: int


def quantize(job: QuantizeJob, work_dir: Path, runtime: Runtime, progress: Progress) -> Quantized:
    """Write a quantized model in the gptq or awq format.

    Raises:
        BackendMissing: gptqmodel is not installed.
        BackendFailed: it crashed.
    """
    return _run(job, Quantized, work_dir, runtime, progress)


def compare(
    job: CompareJob, work_dir: Path, runtime: Runtime, progress: Progress
) -> ComparisonFields:
    """Return how both models do on the rows, loaded with plain `from_pretrained`.

    Raises:
        BackendMissing: gptqmodel is not installed.
        BackendFailed: it crashed.
    """
    return _run(job, ComparisonFields, work_dir, runtime, progress)


def _run(
    job: _Job, answer: type[Answer], work_dir: Path, runtime: Runtime, progress: Progress
) -> Answer:
    environment = open_environment(BACKEND, runtime)
    return run_job(
        environment, job, answer, work_dir, progress=progress, install=runtime.install_backends
    )
