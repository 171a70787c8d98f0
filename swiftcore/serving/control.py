"""How a deployer talks to a gateway: JSON lines over a loopback connection, with a secret token.

deployer: {"token", "command": "deploy", "release", "api_key", "start_timeout_seconds"}
gateway:  {"event": "current"}                          the release is served already
          {"event": "ready", "port", "pid"}             probe it, then answer
          {"event": "ready", "port", "pid", "in_place", "names"}   the same, in the running server:
                                                        which adapters come and go, and the hidden
                                                        names of those that come
          {"event": "failed", "error"}                  nothing changed
deployer: {"command": "switch", "golden"}   gateway: {"event": "switched", "pid", "previous"}
     or:  {"command": "discard", "reason"}  gateway: {"event": "discarded"}
     or:  (closes the connection: as discard)
deployer: {"token", "command": "stop"}      gateway: {"event": "stopping"}
     or:  "stop if unused"                  gateway: {"event": "stopping" or "staying"}
"""

import asyncio
import contextlib
import hmac
import json
import logging
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swiftcore.errors import EnvironmentMissing, SwiftError, TransientError, from_dict
from swiftcore.serving.endpoint import EndpointFolder
from swiftcore.serving.release import Release

if TYPE_CHECKING:
    from swiftcore.serving.gateway import Candidate, Gateway

logger = logging.getLogger(__name__)
_MAX_LINE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Deployment:
    """What a deployer asks for."""

    release: Release
    api_key: str | None
    start_timeout_seconds: float


class ControlServer:
    """The gateway's end of the channel."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._token = secrets.token_hex(32)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def busy(self) -> bool:
        """Whether a deployer is connected."""
        return bool(self._tasks)

    async def start(self) -> tuple[int, str]:
        """Listen on a free loopback port; return it with the token."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=_MAX_LINE_BYTES
        )
        return self._server.sockets[0].getsockname()[1], self._token

    async def close(self) -> None:
        """Hang up on everyone; candidates are discarded."""
        if self._server:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except ConnectionError:
            logger.info("a deployer hung up")
        except (SwiftError, OSError) as error:
            with contextlib.suppress(ConnectionError):
                await _send(writer, event="failed", error=_as_swift_error(error).as_dict())
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = await _receive(reader)
        if not hmac.compare_digest(str(order.get("token", "")).encode(), self._token.encode()):
            return
        if order["command"] in ("stop", "stop if unused"):
            stops = order["command"] == "stop" or self._gateway.unused
            await _send(writer, event="stopping" if stops else "staying")
            if stops:
                await self._gateway.stop()
            return
        deployment = Deployment(
            Release.from_dict(order["release"]),
            order.get("api_key"),
            float(order["start_timeout_seconds"]),
        )
        async with self._gateway.deploying:
            await self._deploy(deployment, reader, writer)

    async def _deploy(
        self, wanted: Deployment, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._gateway.serves(wanted.release.fingerprint):
            await _send(writer, event="current")
            return
        answer = asyncio.create_task(_receive(reader))
        try:
            candidate = await self._start(wanted, answer)
            reason: str | None = "the deployer went away"
            try:
                told = candidate.as_event()
                await _send(writer, event="ready", **told)
                order = await answer
                if order["command"] == "switch":
                    previous = await self._gateway.switch(candidate, order["golden"])
                    reason = None
                    await _send(writer, event="switched", pid=told["pid"], previous=previous)
                else:
                    reason = str(order.get("reason"))
            except SwiftError as error:
                reason = str(error)
                raise
            finally:
                if reason is not None:
                    await self._gateway.discard(candidate, reason)
            if reason is not None:
                await _send(writer, event="discarded")
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    async def _start(self, wanted: Deployment, answer: "asyncio.Task[Any]") -> "Candidate":
        """Start the candidate, and give up when the deployer hangs up meanwhile."""
        starting = asyncio.create_task(self._gateway.start_candidate(wanted))
        try:
            await asyncio.wait({starting, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                raise ConnectionResetError("the deployer hung up")
            return starting.result()
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)


class ControlClient:
    """The deployer's end of the channel; use it as a context manager.

    Raises:
        TransientError: the gateway does not answer.
    """

    def __init__(self, folder: EndpointFolder, *, timeout_seconds: float) -> None:
        control = folder.read_control()
        if control is None:
            raise _silent(folder)
        self._folder = folder
        self._token = control["token"]
        try:
            self._socket = socket.create_connection(("127.0.0.1", control["port"]), timeout_seconds)
        except OSError as error:
            raise _silent(folder) from error
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order and return the event it leads to.

        Raises:
            SwiftError: the gateway says that it failed.
            TransientError: the gateway is silent or gone.
        """
        try:
            self._socket.sendall(json.dumps({"token": self._token, **order}).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise _silent(self._folder) from error
        if not line:
            raise _silent(self._folder)
        event = json.loads(line)
        if event["event"] == "failed":
            raise from_dict(event["error"])
        return event


def _silent(folder: EndpointFolder) -> TransientError:
    return TransientError(
        "the endpoint's gateway does not answer",
        where=folder.path,
        do=f"try again; if it stays so, see {folder.logs / 'gateway.log'}",
    )


def _as_swift_error(error: SwiftError | OSError) -> SwiftError:
    if isinstance(error, SwiftError):
        return error
    return EnvironmentMissing("the server process can't be started", found=error)


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    line = await reader.readline()
    if not line:
        raise ConnectionResetError("the deployer hung up")
    return json.loads(line)


async def _send(writer: asyncio.StreamWriter, **event: Any) -> None:
    writer.write(json.dumps(event).encode() + b"\n")
    await writer.drain()
