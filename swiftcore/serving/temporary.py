"""A model served for the time of one piece of work, on a private port of this machine."""

import contextlib
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swiftcore.errors import EnvironmentMissing
from swiftcore.serving.backend import (
    log_tail,
    server_command,
    server_environment,
    why_not_started,
)
from swiftcore.serving.release import Release

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 10.0
# A proxy that the environment names must not see requests to this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Served:
    """Where a model answers: the address ends in /v1."""

    url: str
    name: str
    api_key: str


@contextlib.contextmanager
def temporarily_served(
    release: Release, log: Path, *, timeout_seconds: float = 120.0
) -> Iterator[Served]:
    """Serve a release inside the block, with a key that nobody else knows.

    Raises:
        SwiftError: what the server said when it could not start.
        EnvironmentMissing: it was not ready in time.
    """
    key = secrets.token_hex(16)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port = listener.getsockname()[1]
        with log.open("ab") as output:
            process = subprocess.Popen(
                server_command(release, listener.fileno(), log),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=server_environment(key),
                pass_fds=[listener.fileno()],
            )
    try:
        _wait_ready(process, release, port, log, timeout_seconds)
        yield Served(f"http://127.0.0.1:{port}/v1", release.names[0], key)
    finally:
        _end(process)


def _wait_ready(
    process: "subprocess.Popen[bytes]", release: Release, port: int, log: Path, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            if _DIRECT.open(f"http://127.0.0.1:{port}/ready", timeout=10.0).status == 200:
                return
        if time.monotonic() > deadline:
            raise EnvironmentMissing(
                f"the server of {release.label} did not become ready",
                where=log,
                found=f"no answer after {seconds:g} s; log: {log_tail(log)}",
                do="raise runtime.start_timeout_seconds, or see the log",
            )
        time.sleep(_POLL_SECONDS)
    raise why_not_started(release, log, process.returncode)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
