"""Tools that write the awq format, all asked the same: which model, from which rows, where to."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from swiftcore.backends.environment import open_environment
from swiftcore.backends.jobs import run_job
from swiftcore.backends.spec import get_backend
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime


class AwqJob(BaseModel):
    """What to quantize to 4 bits: `rows` are token ids, `group_size` weights share a scale."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    out: Path
    device: str
    group_size: int
    rows: list[list[int]]


class AwqWritten(BaseModel):
    """What did it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str


def write_awq(
    name: str, job: AwqJob, work_dir: Path, runtime: Runtime, progress: Progress
) -> AwqWritten:
    """Let a backend write a quantized model in the awq format.

    Args:
        name: autoawq or lmdeploy_lite.
        job: what to do.
        work_dir: folder of the job's files.
        runtime: where backends are.
        progress: hears of its steps.

    Raises:
        UsageError: the tool does not know the model's family.
        BackendMissing: the backend is not installed.
        BackendFailed: it crashed.
    """
    environment = open_environment(get_backend(name), runtime)
    return run_job(
        environment, job, AwqWritten, work_dir, progress=progress, install=runtime.install_backends
    )
