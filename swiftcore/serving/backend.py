"""One running server process of one release, as the gateway sees it."""

import asyncio
import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

import httpx

from swiftcore.errors import GateRefused, SwiftError, from_dict
from swiftcore.serving.process import ProcessIdentity
from swiftcore.serving.release import Release
from swiftcore.serving.server import API_KEY_VARIABLE, TOKEN_VARIABLE

_POLL_SECONDS = 0.1
_LOG_TAIL_BYTES = 2000
# Below uvicorn's 5 s, so the gateway never reuses a connection the backend is about to close.
_IDLE_CONNECTION_SECONDS = 2.0


class Backend:
    """A server process on a private port of this machine. Make one with `Backend.start`."""

    def __init__(
        self,
        release: Release,
        api_key: str | None,
        process: asyncio.subprocess.Process,
        port: int,
        log: Path,
        files: list[tuple[str, int, int]],
        token: str,
    ) -> None:
        self.release = release
        self.api_key = api_key
        self.token = token
        self.process = process
        self.identity = ProcessIdentity.of(process.pid)
        self.port = port
        self.log = log
        self.files = files
        self.num_active = 0
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            timeout=httpx.Timeout(None, connect=5.0),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_IDLE_CONNECTION_SECONDS),
            trust_env=False,
        )

    @classmethod
    async def start(cls, release: Release, api_key: str | None, log: Path) -> "Backend":
        """Start the server process; it is not ready yet.

        The listening socket is made here and handed over, so the port is known before the process
        runs and nobody else can take it.
        """
        files, token = release.files(), secrets.token_hex(32)
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
            port = listener.getsockname()[1]
            command = server_command(release, listener.fileno(), log)
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=server_environment(api_key, token),
                    pass_fds=[listener.fileno()],
                )
        return cls(release, api_key, process, port, log, files, token)

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process.returncode is None

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until the server answers /ready.

        Raises:
            SwiftError: what the server itself said when it could not start.
            GateRefused: it ended without saying why, or took too long.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.running:
                    if await self.healthy("/ready"):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise GateRefused(
                f"the server of {self.release.label} did not become ready",
                where=self.log,
                found=f"no answer after {timeout_seconds:g} s; log: {self.log_tail()}",
                do="raise runtime.start_timeout_seconds, or see the log",
            ) from None
        raise why_not_started(self.release, self.log, self.process.returncode)

    async def healthy(self, path: str = "/health") -> bool:
        """Tell whether a health check answers 200."""
        try:
            return (await self.client.get(path, timeout=10.0)).status_code == 200
        except httpx.HTTPError:
            return False

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """End the process: SIGTERM, then SIGKILL."""
        if self.running:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), grace_seconds)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self.client.aclose()

    async def drain(self, timeout_seconds: float) -> None:
        """Wait until no request is being answered, but not for ever."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while self.num_active and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)

    async def take_over(self) -> "Backend":
        """Return the server that requests go to when this one is switched to: itself."""
        return self

    def as_event(self) -> dict[str, Any]:
        """Return what the deployer probes."""
        return {"port": self.port, "pid": self.process.pid}

    def log_tail(self) -> str:
        """Return the last lines of the process's output."""
        return log_tail(self.log)

    def as_dict(self) -> dict[str, Any]:
        """Return what the state file says about the process."""
        identity = self.identity.as_dict() if self.identity else None
        return {"process": identity, "port": self.port, "log": str(self.log)}


def server_command(release: Release, listener: int, log: Path) -> list[str]:
    """Return the command line of a server that takes over a listening socket by its number."""
    return [
        *(sys.executable, "-P", "-m", release.server),
        *release.command(),
        *("--fd", str(listener), "--parent", str(os.getpid())),
        *("--error-file", str(_error_file(log)), "--log-file", str(log)),
    ]


def why_not_started(release: Release, log: Path, returncode: int | None) -> SwiftError:
    """Return what a server said that ended before it was ready."""
    try:
        return from_dict(json.loads(_error_file(log).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return GateRefused(
            f"the server of {release.label} ended before it was ready",
            where=log,
            found=f"exit status {returncode}; log: {log_tail(log)}",
            do="see the log",
        )


def log_tail(log: Path) -> str:
    """Return the last lines of a server's output."""
    try:
        return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _error_file(log: Path) -> Path:
    return log.with_suffix(".error.json")


def server_environment(api_key: str | None, token: str | None = None) -> dict[str, str]:
    """Return the environment variables of a server process.

    Args:
        api_key: what clients must send.
        token: opens the private road to its adapters; None: there is no such road.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name, value in ((API_KEY_VARIABLE, api_key), (TOKEN_VARIABLE, token)):
        environment.pop(name, None)
        if value:
            environment[name] = value
    return environment
