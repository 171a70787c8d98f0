"""One job in a backend's environment: a typed order in, progress on the way, a typed answer out.

The folder of a job keeps `job.json`, `answer.json` or `error.json`, and `log.txt` with everything
the tool printed. The job's processes form one group, which ends with the job, with its limits, on
request, and with this process (see `child`).
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swiftcore.backends.environment import Environment
from swiftcore.errors import BackendFailed, SwiftError, from_dict
from swiftcore.progress import Progress, Silent

Answer = TypeVar("Answer", bound=BaseModel)

_CHILD = Path(__file__).with_name("child.py")
_POLL_SECONDS = 0.1
_MEMORY_POLL_SECONDS = 0.5
_GRACE_SECONDS = 3.0
_TAIL_CHARACTERS = 1500
_BLOCK_BYTES = 65536
_REFUSALS = {2, 3, 5, 6}


class Limits(BaseModel):
    """What a job may take at most; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float | None = Field(default=None, gt=0, description="from start to end")
    memory_bytes: int | None = Field(
        default=None, gt=0, description="resident memory of all its processes together"
    )


@dataclass(frozen=True)
class _Files:
    """The files of a job's folder."""

    folder: Path

    @property
    def job(self) -> Path:
        return self.folder / "job.json"

    @property
    def answer(self) -> Path:
        return self.folder / "answer.json"

    @property
    def error(self) -> Path:
        return self.folder / "error.json"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def log_tail(self) -> str:
        """Return the end of what the tool printed."""
        text = self.log.read_text(encoding="utf-8", errors="replace").strip()
        return text[-_TAIL_CHARACTERS:] or "nothing was printed"


def run_job(
    environment: Environment,
    job: BaseModel,
    answer: type[Answer],
    work_dir: Path,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
    variables: Mapping[str, str] | None = None,
    install: bool = False,
) -> Answer:
    """Run `job.py` of a backend and return its answer.

    Args:
        environment: where the tool is.
        job: what to do; job.py receives it as a dict.
        answer: type that the answer must have.
        work_dir: folder of the job's files; those of an earlier attempt are replaced.
        limits: time and memory.
        progress: hears what job.py says.
        variables: environment variables for the tool.
        install: install the backend when it is not there.

    Raises:
        BackendMissing: the backend is not installed, or can't be.
        BackendFailed: the tool crashed, was killed, passed a limit, or answered nonsense.
        SwiftError: job.py refused the work; the error is of the kind that it named.
    """
    files = _Files(work_dir.absolute())
    files.folder.mkdir(parents=True, exist_ok=True)
    for left in (files.answer, files.error):
        left.unlink(missing_ok=True)
    files.job.write_text(job.model_dump_json(indent=2), encoding="utf-8")
    name = environment.backend.name
    with environment.in_use(install=install) as python:
        command = [str(python), "-Iu", str(_CHILD), str(environment.backend.job_script)]
        with _started([*command, str(files.folder)], files, variables or {}) as running:
            exit_code = _wait(running, name, limits or Limits(), progress or Silent(), files)
    if exit_code != 0:
        raise _failure(name, exit_code, files)
    return _read_answer(name, answer, files)


@dataclass(frozen=True)
class _Running:
    """A started job: the guard's process, and the reading end of its news."""

    process: "subprocess.Popen[bytes]"
    news: int


@contextlib.contextmanager
def _started(command: list[str], files: _Files, variables: Mapping[str, str]) -> Iterator[_Running]:
    """Start the job's process group; nothing of it is left afterwards."""
    read_end, write_end = os.pipe()
    try:
        process = _popen([*command, str(write_end)], files, write_end, variables)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    try:
        yield _Running(process, read_end)
    finally:
        _end(process)
        os.close(read_end)


def _popen(
    command: list[str], files: _Files, news: int, variables: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    with files.log.open("wb") as log:
        return subprocess.Popen(
            command,
            # The guard waits for the end of this pipe, which comes with ours.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(news,),
            env={**os.environ, **variables},
            # What a tool drops where it stands is dropped there.
            cwd=files.folder,
            start_new_session=True,
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the group: ask the worker, wait a little, kill what is left; the guard ignores asking."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    # Also when the guard is gone: somebody may have killed it alone.
    _signal_group(process, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _wait(running: _Running, name: str, limits: Limits, progress: Progress, files: _Files) -> int:
    """Pass news on until the job ends; return its exit code, negative for a signal."""
    news = _News(running.news, progress)
    started = time.monotonic()
    next_look = started
    while news.exit_code is None:
        if not news.read(_POLL_SECONDS) and running.process.poll() is not None:
            # The guard itself was killed; nothing more will come.
            return -signal.SIGKILL
        now = time.monotonic()
        if limits.seconds is not None and now - started > limits.seconds:
            raise _over(name, files, f"still running after {limits.seconds:g} s", "time limit")
        if limits.memory_bytes is not None and now >= next_look:
            next_look = now + _MEMORY_POLL_SECONDS
            taken = _memory(running.process.pid)
            if taken > limits.memory_bytes:
                raise _over(name, files, f"{taken / 1e6:.0f} MB of memory taken", "memory limit")
    return news.exit_code


class _News:
    """Reads the job's lines and passes progress on."""

    def __init__(self, descriptor: int, progress: Progress) -> None:
        self._descriptor = descriptor
        self._progress = progress
        self._rest = b""
        self.exit_code: int | None = None

    def read(self, seconds: float) -> bool:
        """Wait for news and pass them on; tell whether any came."""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        block = os.read(self._descriptor, _BLOCK_BYTES) if ready else b""
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            self._take(line)
        return bool(block)

    def _take(self, line: bytes) -> None:
        # A tool that writes to a descriptor it does not own can put anything here.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            fields = json.loads(line)
            if "exit" in fields:
                self.exit_code = int(fields["exit"])
            else:
                self._progress.update(fields["done"], fields["total"], str(fields["text"]))


def _memory(pid: int) -> int:
    """Return the resident bytes of a process and all below it; those that are gone count 0."""
    try:
        guard = psutil.Process(pid)
        family = [guard, *guard.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _over(name: str, files: _Files, found: str, limit: str) -> BackendFailed:
    return BackendFailed(
        f"{name} was stopped at its {limit}",
        where=files.log,
        found=found,
        expected="the end of the job",
        do=f"give it less to do, or raise the {limit}",
    )


def _failure(name: str, exit_code: int, files: _Files) -> SwiftError:
    told = _told(files.error)
    if exit_code in _REFUSALS and told is not None:
        fields = {"where": f"{name}, {files.job}", **told}
        return from_dict(fields)
    if exit_code < 0:
        return BackendFailed(
            f"{name} was killed in the middle of its job",
            where=files.log,
            found=f"signal {signal.Signals(-exit_code).name}; {files.log_tail()}",
            expected="the end of the job",
            do="see whether memory ran out (dmesg); then run the same command again",
        )
    crash = f"{told['error']}: {told['message']}\n" if told else f"exit code {exit_code}\n"
    return BackendFailed(
        f"{name} crashed",
        where=files.log,
        found=crash + files.log_tail(),
        expected="the end of the job",
        do=f"read the log; swift env check {name} looks at the environment",
    )


def _told(path: Path) -> dict[str, Any] | None:
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return fields if isinstance(fields, dict) and {"error", "message"} <= fields.keys() else None


def _read_answer(name: str, answer: type[Answer], files: _Files) -> Answer:
    try:
        return answer.model_validate_json(files.answer.read_bytes())
    except (OSError, ValidationError) as err:
        raise BackendFailed(
            f"{name} gave an answer that can't be read",
            where=files.answer,
            found=str(err),
            expected=f"the fields of {answer.__name__}",
            do=f"swift env check {name}; another version of the tool may answer differently",
        ) from err
