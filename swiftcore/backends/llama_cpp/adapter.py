"""The typed order and answer of llama.cpp's job."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from swiftcore.backends.environment import open_environment
from swiftcore.backends.jobs import run_job
from swiftcore.backends.llama_cpp import BACKEND
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime


class QuantizeFileJob(BaseModel):
    """What to quantize, and what to ask of the result.

    `outtype` is llama.cpp's name of the type; `texts` are to be cut into tokens, `rows` are token
    ids to be read; the logits after each token go to the file `logits`, an array [T, V] a row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Path
    out: Path
    outtype: str
    texts: list[str]
    rows: list[list[int]]
    logits: Path
    threads: int | None


class QuantizedFile(BaseModel):
    """What did it, and the tokens of each text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    tokens: list[list[int]]


def quantize_file(
    job: QuantizeFileJob, work_dir: Path, runtime: Runtime, progress: Progress
) -> QuantizedFile:
    """Write a GGUF file in fewer bits, and let llama.cpp read it.

    Raises:
        BackendMissing: llama_cpp is not installed.
        BackendFailed: it crashed.
    """
    environment = open_environment(BACKEND, runtime)
    return run_job(
        environment,
        job,
        QuantizedFile,
        work_dir,
        progress=progress,
        install=runtime.install_backends,
    )
