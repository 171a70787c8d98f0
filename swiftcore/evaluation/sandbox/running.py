"""One program at a time in a process of its own: no network, and limits on what it may take.

How strong the walls are depends on the kernel and on where this runs (containers often forbid
namespaces), so `open_sandbox` tries them with a program that attempts to get out, and says which
measures hold (`child` explains them). They protect the machine. A program that is out to cheat can
still write its own verdict; a benchmark's answers are not expected to.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from swiftcore.errors import EnvironmentMissing

_CHILD = Path(__file__).with_name("child.py")
# Beyond the program's own time: starting an interpreter, on a machine that is busy.
_GRACE_SECONDS = 20.0
_CHOICES = (
    ("namespaces", "seccomp", "limits"),
    ("seccomp", "limits"),
    ("namespaces", "limits"),
    ("hook", "limits"),
)
_ESCAPES = """
import os, socket, math, collections
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", {port}), 2),
    lambda: os.fork() or os._exit(0),
):
    try:
        attempt()
    except OSError:
        continue
    raise AssertionError("an escape worked")
"""


@dataclass(frozen=True)
class Limits:
    """What one program may take.

    Args:
        seconds: from start to end.
        cpu_seconds: processor time.
        memory_bytes: address space.
        file_bytes: one file, and with namespaces all of them together.
    """

    seconds: float = 30.0
    cpu_seconds: float = 12.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20


@dataclass(frozen=True)
class Outcome:
    """Whether a program ran to its end without an error, and if not, why."""

    passed: bool
    why: str | None = None


@dataclass(frozen=True)
class Sandbox:
    """Runs programs with the measures that hold on this machine."""

    measures: tuple[str, ...]

    def run(self, program: str, limits: Limits | None = None) -> Outcome:
        """Run a program to its end, or to its limits; nothing of it is left behind.

        Raises:
            EnvironmentMissing: the surroundings could not be made this time.
        """
        with tempfile.TemporaryDirectory(prefix="swift-sandbox-") as folder:
            job = {
                "program": program,
                "measures": self.measures,
                "folder": folder,
                **asdict(limits or Limits()),
            }
            verdict = _run_child(job, folder)
        if "broken" in verdict:
            raise _broken(verdict["broken"])
        return Outcome(bool(verdict.get("passed")), verdict.get("why"))


@cache
def open_sandbox() -> Sandbox:
    """Return the strongest sandbox that works here, tried with a program that tries to get out.

    Raises:
        EnvironmentMissing: none does.
    """
    if sys.platform != "linux":
        raise _broken(f"the sandbox is built on Linux, and this is {sys.platform}")
    tried = []
    for measures in _CHOICES:
        try:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                attempts = _ESCAPES.format(port=listening.getsockname()[1])
                outcome = Sandbox(measures).run(attempts)
        except EnvironmentMissing as err:
            tried.append(f"{', '.join(measures)}: {err.found}")
            continue
        if outcome.passed:
            return Sandbox(measures)
        tried.append(f"{', '.join(measures)}: {outcome.why}")
    raise _broken("\n".join(tried))


def _run_child(job: dict[str, object], folder: str) -> dict[str, str]:
    # -I and -S: no environment, no user's folders, no installed packages.
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    seconds = float(str(job["seconds"])) + _GRACE_SECONDS
    try:
        written, complaint = child.communicate(_json(job), timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"why": f"no end within {seconds:g} seconds"}
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    try:
        return json.loads(written)
    except ValueError:
        return {"broken": complaint.strip().rpartition("\n")[2] or "no word from the process"}


def _json(job: dict[str, object]) -> str:
    # ASCII keeps half surrogate pairs, which a model may write, readable for the child.
    return json.dumps(job, ensure_ascii=True)


def _broken(found: str) -> EnvironmentMissing:
    return EnvironmentMissing(
        "Programs can't be run in a sandbox here.",
        where="the benchmarks humaneval and mbpp",
        found=found,
        expected="a Linux kernel with seccomp or user namespaces",
        do="leave these benchmarks out of evaluate.eval_dataset, or evaluate on another machine",
    )
