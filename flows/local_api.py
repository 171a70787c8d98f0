"""A Prefect API for one flow run, when no server is running.

Prefect starts such a server itself, but only when the client first needs it, with its UI's block
types registered anew, in our process group, and as an orphan when we are killed. Started here, it
boots while this process imports Prefect and MLflow; Ctrl-C reaches the flow and not the server the
flow must report to; and it ends when this process does, however that happens: it watches the pipe
that only this process holds open. Its database is the one `prefect server start` shows later.
"""

import fcntl
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from swiftcore.errors import EnvironmentMissing

if TYPE_CHECKING:
    import uvicorn

_START_SECONDS = 120.0
_STOP_SECONDS = 15.0


class LocalApi:
    """A Prefect API server in a process of its own, on a free port of the loopback address."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._log = home / "local-api.log"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the address for PREFECT_API_URL."""
        return f"http://127.0.0.1:{self._port}/api"

    def start(self) -> None:
        """Start the server and return at once."""
        self._home.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
            # Event triggers start deployments, which a server with workers looks after.
            "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
        }
        environment.pop("PREFECT_API_URL", None)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.local_api", str(self._port), str(self._home)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            EnvironmentMissing: it ended, or does not answer in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise EnvironmentMissing(
            "Prefect's local API does not start.",
            where=self._log,
            found=f"exit code {self._process.poll()}; {_last_line(self._log)}",
            expected=f"an answer on {self.url} within {_START_SECONDS:g} s",
            do="read that log; or start one with `prefect server start` and set PREFECT_API_URL",
        )

    def stop(self) -> None:
        """Let the server finish what it has, and end it."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def local_api(home: Path) -> Iterator[LocalApi]:
    """Run a local API for the length of a `with` block; it starts in the background."""
    api = LocalApi(home)
    api.start()
    try:
        yield api
    finally:
        _send_pending()
        api.stop()


def _send_pending() -> None:
    """Send what Prefect's background threads of this process still hold."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    EventsWorker.drain_all(timeout=10)
    APILogHandler().flush()


def serve(port: int, home: Path) -> None:
    """Be the server process until stdin is closed."""
    # Two first runs at once would both create the database, and migrations expect no company.
    with (home / "local-api.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = _server(port)
        threading.Thread(target=_release_when_started, args=(server, lock), daemon=True).start()
        threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
        server.run()


def _server(port: int) -> "uvicorn.Server":
    # Thousands of classes are made and none is garbage; collecting costs a tenth of the start.
    gc.disable()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app()
    gc.freeze()
    gc.enable()
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            log_level="warning",
            lifespan="on",
            # The flow has said all it had to say; its open event stream is no reason to wait.
            timeout_graceful_shutdown=1,
        )
    )


def _release_when_started(server: "uvicorn.Server", lock: IO[str]) -> None:
    while not server.started:
        time.sleep(0.05)
    fcntl.flock(lock, fcntl.LOCK_UN)


def _stop_with_parent(server: "uvicorn.Server") -> None:
    sys.stdin.buffer.read()
    server.should_exit = True
    time.sleep(_STOP_SECONDS)
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
