"""The typed order and answer of llm-compressor's job."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from swiftcore.backends.environment import open_environment
from swiftcore.backends.jobs import run_job
from swiftcore.backends.llmcompressor import BACKEND
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime


class CompressJob(BaseModel):
    """What to quantize: `rows` are token ids, none for a method that learns from no rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    out: Path
    method: Literal["gptq", "awq", "fp8", "w8a8"]
    bits: int
    group_size: int | None
    rows: list[list[int]]
    device: str


class Compressed(BaseModel):
    """What did it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str


def compress(job: CompressJob, work_dir: Path, runtime: Runtime, progress: Progress) -> Compressed:
    """Write a quantized model in the compressed-tensors format.

    Raises:
        BackendMissing: llmcompressor is not installed.
        BackendFailed: it crashed.
    """
    environment = open_environment(BACKEND, runtime)
    return run_job(
        environment, job, Compressed, work_dir, progress=progress, install=runtime.install_backends
    )
