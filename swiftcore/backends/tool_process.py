"""The processes of a tool's server: the guard, the tool below it, their variables and their log."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import psutil

from swiftcore.backends.serving import Command, Place, ServingTool
from swiftcore.backends.tool_start import KEY_VARIABLE

_GUARD = Path(__file__).with_name("tool_guard.py")
_START = Path(__file__).with_name("tool_start.py")
_KILL_SECONDS = 5.0
_READ_BYTES = 200_000
_PRIVATE = 0o600
# Without bytecode a tool of many modules compiles them at each start, for a minute or more.
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", _NO_BYTECODE)
# The endpoint's key, and what tokens open: a tool asks no hub.
_SECRET = re.compile(r"SWIFTCORE_|(HF|HUGGING_FACE_HUB|MODELSCOPE_API)_TOKEN$")


class ToolProcess:
    """A started guard with its tool; `held` is let go when they have ended."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, log_offset: int) -> None:
        self.log = log
        self.held = contextlib.ExitStack()
        self._process = process
        self._log_offset = log_offset
        self._ended = False

    @classmethod
    def start(
        cls, tool: ServingTool, command: Command, place: Place, python: Path, key: str, log: Path
    ) -> "ToolProcess":
        """Start a tool with an environment's interpreter; what it prints is added to a log."""
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE)
        with os.fdopen(descriptor, "ab") as stream:
            offset = stream.tell()
            stream.write(_described(tool, command).encode())
            stream.flush()
            process = subprocess.Popen(
                _words(command, python),
                # The guard waits for the end of this pipe, which comes with ours.
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=_variables(command, key, python, place),
                # What a tool drops where it stands is dropped there.
                cwd=log.parent,
                start_new_session=True,
            )
        return cls(process, log, offset)

    @property
    def pid(self) -> int:
        """Number of the guard."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the guard is there, and so the tool."""
        return self._process.poll() is None

    def exit_code(self) -> int:
        """Wait for the end, and return how it came; negative for a signal."""
        return self._process.wait()

    def printed(self) -> str:
        """Return what was printed since the start, at most the last 200 kB."""
        with self.log.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._log_offset, end - _READ_BYTES))
            return stream.read().decode(errors="replace")

    def listens_on(self, port: int) -> bool:
        """Tell whether a process below the guard listens on a port, and no stranger."""
        try:
            family = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return False
        return any(_listens(process, port) for process in family)

    def end(self, grace_seconds: float) -> None:
        """Ask the guard to stop the tool, then to kill it; then kill the group."""
        if self._ended:
            return
        for seconds in (grace_seconds, _KILL_SECONDS):
            if self.running:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)
        # Also when the guard is gone: somebody may have killed it alone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.held.close()
        self._ended = True


def _described(tool: ServingTool, command: Command) -> str:
    """Return what the log begins with: the build that was taken, and its command line."""
    backend = tool.backend
    words = shlex.join([command.module, *command.arguments])
    return f"{backend.name} {backend.version} on {tool.device}: {words}\n"


def _words(command: Command, python: Path) -> list[str]:
    """Return the command line of the guard with that of the tool behind it."""
    start = [str(_START), command.key_flag] if command.key_flag else ["-m"]
    tool = [str(python), "-Pu", *start, command.module, *command.arguments]
    return [str(python), "-I", str(_GUARD), *tool]


def _variables(command: Command, key: str, python: Path, place: Place) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _DROPPED and not _SECRET.match(name)
    }
    # Removed with the environment: what tools compile belongs to their version.
    cache = python.parent.parent / "cache"
    return {
        **kept,
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "XDG_CACHE_HOME": str(cache),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(place.threads),
        **command.variables,
        command.key_variable or KEY_VARIABLE: key,
    }


def _listens(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(
            connection.laddr and connection.laddr.port == port
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        )
    return False
