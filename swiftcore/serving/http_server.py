"""Running an ASGI application on sockets, with a limit on how long a request's head may take."""

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from swiftcore.errors import EnvironmentMissing


def make_server(
    app: Any,
    *,
    header_timeout_seconds: float,
    log_level: str = "info",
    drain_seconds: float = 30,
    lifespan: bool = True,
) -> uvicorn.Server:
    """Return a uvicorn server that closes connections which never finish their request line.

    uvicorn itself waits for ever for the head of a first request, so a client that sends a byte a
    minute (slow loris) could hold every connection.
    """

    class Protocol(_HeadTimeout):
        head_timeout_seconds = header_timeout_seconds

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on" if lifespan else "off",
        log_level=log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(drain_seconds),
    )
    return uvicorn.Server(config)


class _HeadTimeout(H11Protocol):
    head_timeout_seconds: float
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._disarm()
        elif self._head_timer is None:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_seconds, self._give_up)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        EnvironmentMissing: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise EnvironmentMissing(
            f"can't listen on {host}:{port}",
            where=f"{host}:{port}",
            found=error.strerror or str(error),
            expected="a free port",
            do="choose another one with --set runtime.port=PORT (0 takes a free one)",
        ) from error
    return listener
