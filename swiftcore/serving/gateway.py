"""The long-lived process of one endpoint: owns the public port, keeps a backend behind it.

    client -> gateway (public port) -> backend (private port, one release)

A deployment starts a candidate backend beside the current one, lets the deployer probe it, and then
switches: new requests go to the candidate, the old backend finishes what it has and ends. A
candidate lives only as long as the deployer's connection, so a deployer that dies leaves nothing
behind. A backend that dies is started again, a limited number of times, if its files are still
those that were verified. Backends die with the gateway.
"""

import argparse
import asyncio
import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from swiftcore.errors import EnvironmentMissing, SwiftError
from swiftcore.serving.adapter_swap import AdapterSwap, NotInPlace
from swiftcore.serving.api_errors import ApiError
from swiftcore.serving.backend import Backend
from swiftcore.serving.control import ControlServer, Deployment
from swiftcore.serving.endpoint import EndpointFolder
from swiftcore.serving.guard import Guard
from swiftcore.serving.http_server import make_server
from swiftcore.serving.limits import Limits
from swiftcore.serving.process import ProcessIdentity
from swiftcore.serving.proxy import Proxy
from swiftcore.serving.release import Release

logger = logging.getLogger(__name__)
Candidate = Backend | AdapterSwap

_MAX_RESTARTS = 5
_RESTART_WINDOW_SECONDS = 600.0
_RESTART_TIMEOUT_SECONDS = 300.0
_DRAIN_SECONDS = 300.0
_WAIT_FOR_BACKEND_SECONDS = 60.0
_HEALTH_PERIOD_SECONDS = 5.0
_MAX_FAILED_CHECKS = 3
# A gateway that serves nothing and hears from no deployer ends by itself.
_IDLE_SECONDS = 30.0
_KEPT_LOGS = 10
_LIMITS = Limits(max_concurrent_requests=512)


class Gateway:
    """Keeps one release answering on one port.

    Args:
        folder: where state and journal go.
        address: public host and port.
    """

    def __init__(self, folder: EndpointFolder, address: tuple[str, int]) -> None:
        self.folder = folder
        self.address = address
        self.stopping = asyncio.Event()
        self.deploying = asyncio.Lock()
        self._backend: Backend | None = None
        self._status = "starting"
        self._problem: str | None = None
        self._restarts: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        before = folder.read_state() or {}
        # {"release": ..., "golden": [...]} of what runs and what ran before.
        self._current: dict[str, Any] | None = before.get("current")
        self._previous: dict[str, Any] | None = before.get("previous")

    # What deployers ask for, through the control channel.

    def serves(self, fingerprint: str) -> bool:
        """Tell whether this release is current and its process runs."""
        backend = self._backend
        return bool(backend and backend.running and backend.release.fingerprint == fingerprint)

    async def start_candidate(self, deployment: Deployment) -> Candidate:
        """Start a server for a release and wait until it is ready.

        Where only adapters differ, the running server is made ready for them instead.

        Raises:
            SwiftError: it did not get ready; its process is gone, or the running one as it was.
        """
        release = deployment.release
        swap = await self._stage_adapters(deployment)
        if swap is not None:
            return swap
        self.folder.record("candidate started", release=release.label)
        candidate = await Backend.start(release, deployment.api_key, self._new_log())
        try:
            await candidate.wait_ready(deployment.start_timeout_seconds)
        except BaseException:
            await candidate.stop()
            raise
        return candidate

    async def discard(self, candidate: Candidate, reason: str) -> None:
        """End a candidate that will not be used."""
        await candidate.stop()
        self.folder.record("refused", release=candidate.release.label, reason=reason)

    async def switch(self, candidate: Candidate, golden: list[dict[str, Any]]) -> str | None:
        """Send requests to the candidate from now on; return the label of the release before.

        Raises:
            GateRefused: the running server did not change its adapters.
        """
        backend = await candidate.take_over()
        old = self._backend
        served = {"release": candidate.release.as_dict(), "golden": golden}
        if self._current and not _same(self._current, served):
            self._previous = self._current
        self._current = served
        self._become("ready", backend)
        previous = _label(self._previous)
        changed = isinstance(candidate, AdapterSwap)
        facts = {"in_place": candidate.change.as_dict()} if changed else {}
        self.folder.record("switched", release=candidate.release.label, previous=previous, **facts)
        if backend is not old:
            self._restarts.clear()
            if old:
                self._background(self._retire(old))
        return previous

    @property
    def unused(self) -> bool:
        """Whether nothing is served, and nothing is being started."""
        return self._backend is None and not self.deploying.locked()

    async def stop(self) -> None:
        """Answer nothing more and end everything."""
        self.folder.record("stopped", release=_label(self._current))
        self.stopping.set()

    async def _stage_adapters(self, wanted: Deployment) -> AdapterSwap | None:
        """Load the adapters of a release into the running server; None where that can't be.

        Raises:
            SwiftError: the server refuses one of them, or ended.
        """
        backend, release = self._backend, wanted.release
        if backend is None or self._status != "ready" or not backend.running:
            return None
        change = backend.release.adapter_change(release)
        if change is None or backend.api_key != wanted.api_key:
            return None
        self.folder.record("adapters staged", release=release.label, **change.as_dict())
        try:
            return await AdapterSwap.stage(backend, wanted, change)
        except NotInPlace as reason:
            self.folder.record("new server needed", release=release.label, reason=str(reason))
            return None
        except SwiftError as error:
            self.folder.record("refused", release=release.label, reason=str(error))
            raise

    # What keeps it running.

    async def run(self, listener: socket.socket) -> None:
        """Serve until told to stop."""
        control = ControlServer(self)
        port, token = await control.start()
        self.folder.write_control(port, token, os.getpid())
        self._save()
        server = make_server(
            Guard(self._app, _LIMITS, api_key=None),
            header_timeout_seconds=_LIMITS.header_timeout_seconds,
            log_level="warning",
            drain_seconds=5,
            lifespan=False,
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        watching = asyncio.create_task(self._watch(control))
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            server.should_exit = True
            await asyncio.gather(watching, serving, return_exceptions=True)
            await self._shut_down(control)

    async def _shut_down(self, control: ControlServer) -> None:
        await control.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._backend:
            await self._backend.stop()
        self._become("stopped", None)

    async def _watch(self, control: ControlServer) -> None:
        """Restart a backend that died or hangs; end a gateway nobody uses."""
        idle_since, failed_checks, next_check = time.monotonic(), 0, 0.0
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if self._current_runs() or control.busy or self._status == "failed":
                idle_since = now
            backend = self._backend
            if backend is None:
                if now - idle_since > _IDLE_SECONDS:
                    self.stopping.set()
                continue
            if not backend.running:
                await self._restart(backend)
            elif now >= next_check:
                next_check = now + _HEALTH_PERIOD_SECONDS
                failed_checks = 0 if await backend.healthy() else failed_checks + 1
                if failed_checks >= _MAX_FAILED_CHECKS:
                    self.folder.record("hanging backend killed", release=backend.release.label)
                    await backend.stop()
                    failed_checks = 0

    def _current_runs(self) -> bool:
        return self._backend is not None and self._backend.running

    async def _restart(self, dead: Backend) -> None:
        release, status = dead.release, dead.process.returncode
        self.folder.record("backend died", release=release.label, status=status)
        await dead.stop()
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > _RESTART_WINDOW_SECONDS:
            self._restarts.popleft()
        if len(self._restarts) >= _MAX_RESTARTS:
            self._fail(dead, f"the server died {_MAX_RESTARTS + 1} times; see {dead.log}")
            return
        if release.files() != dead.files:
            self._fail(dead, f"{release.model_dir} is not what was deployed; deploy it again")
            return
        self._become("restarting", dead)
        await asyncio.sleep(0.2 * 2 ** len(self._restarts) - 0.2)
        self._restarts.append(now)
        successor = await Backend.start(release, dead.api_key, self._new_log())
        try:
            await successor.wait_ready(_RESTART_TIMEOUT_SECONDS)
        except SwiftError as error:
            logger.error("restart failed: %s", error)
            await successor.stop()
            if self._backend is dead:
                self._become("restarting", successor)  # dead again: the watch comes back here
            return
        except BaseException:
            await successor.stop()
            raise
        if self._backend is not dead:  # a deployment switched meanwhile
            await successor.stop()
            return
        self._become("ready", successor)
        self.folder.record("restarted", release=release.label)

    def _fail(self, dead: Backend, problem: str) -> None:
        self._problem = problem
        self._become("failed", None)
        self.folder.record("given up", release=dead.release.label, reason=problem)

    async def _retire(self, old: Backend) -> None:
        await old.drain(_DRAIN_SECONDS)
        await old.stop()
        self.folder.record("retired", release=old.release.label)

    def _background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _become(self, status: str, backend: Backend | None) -> None:
        self._status, self._backend = status, backend
        if status != "failed":
            self._problem = None
        self._save()

    def _save(self) -> None:
        host, port = self.address
        gateway = ProcessIdentity.of(os.getpid())
        self.folder.write_state(
            {
                "status": self._status,
                "problem": self._problem,
                "host": host,
                "port": port,
                "url": url_of(host, port),
                "gateway": gateway.as_dict() if gateway else None,
                "backend": self._backend.as_dict() if self._backend else None,
                "current": self._current,
                "previous": self._previous,
            }
        )

    def _new_log(self) -> Path:
        logs = sorted(self.folder.logs.glob("backend-*.log"))
        for old in logs[: -_KEPT_LOGS + 1]:
            old.unlink()
            old.with_suffix(".error.json").unlink(missing_ok=True)
        last = int(logs[-1].stem.partition("-")[2]) if logs else 0
        return self.folder.logs / f"backend-{last + 1:06d}.log"

    # What clients see.

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._route(scope, receive, send)
        except ApiError as error:
            await JSONResponse(error.body(), error.status, error.headers)(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in ("/health", "/ready"):
            ready = self._status == "ready" and self._current_runs()
            body = {
                "status": "ok" if ready else self._status,
                "release": _label(self._current),
                "problem": self._problem,
            }
            await JSONResponse(body, 200 if ready else 503)(scope, receive, send)
        # Dots would be resolved on the way to the server, to paths that are not the API.
        elif path.startswith("/v1/") and not {".", ".."} & set(path.split("/")):
            await Proxy(self._take_backend, _LIMITS)(scope, receive, send)
        else:
            raise ApiError(404, f"Not Found: {scope['method']} {path}", code="unknown_url")

    async def _take_backend(self) -> Backend:
        deadline = time.monotonic() + _WAIT_FOR_BACKEND_SECONDS
        while self._status != "failed" and time.monotonic() < deadline:
            backend = self._backend
            if self._status == "ready" and backend and backend.running:
                return backend
            await asyncio.sleep(0.05)
        raise ApiError(
            503,
            "no model is served here at the moment",
            code="unavailable",
            headers={"Retry-After": "5"},
        )


def url_of(host: str, port: int) -> str:
    """Return the endpoint's address for a client on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{shown}:{port}"


def _label(served: dict[str, Any] | None) -> str | None:
    return None if served is None else Release.from_dict(served["release"]).label


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["release"]["fingerprint"] == other["release"]["fingerprint"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway on an inherited listening socket until it is stopped."""
    command = argparse.ArgumentParser(
        prog="python -m swiftcore.serving.gateway", allow_abbrev=False
    )
    command.add_argument("--state", type=Path, required=True, help="the endpoint's folder")
    command.add_argument("--host", required=True, help="public address, as the user gave it")
    command.add_argument("--fd", type=int, required=True, help="listening socket")
    arguments = command.parse_args(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    folder = EndpointFolder(arguments.state)
    listener = socket.socket(fileno=arguments.fd)

    async def run() -> None:
        address = (arguments.host, listener.getsockname()[1])
        await Gateway(folder, address).run(listener)

    try:
        asyncio.run(run())
    except EnvironmentMissing as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
