"""Passing requests to whichever backend is current, without buffering answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import httpx
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from swiftcore.serving.api_errors import ApiError
from swiftcore.serving.backend import Backend
from swiftcore.serving.guard import read_body
from swiftcore.serving.limits import Limits

logger = logging.getLogger(__name__)
_HOP_BY_HOP = {
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_ATTEMPTS = 3


class Proxy:
    """ASGI application that forwards /v1 to a backend.

    A backend that breaks before it has answered anything is asked again, or its successor is:
    generating has no side effects, so nothing is done twice.

    Args:
        take_backend: waits for the current backend; raises ApiError when there is none.
        limits: body size and time.
    """

    def __init__(self, take_backend: Callable[[], Awaitable[Backend]], limits: Limits) -> None:
        self._take_backend = take_backend
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request.

        Raises:
            ApiError: it was refused, or no backend answered; nothing was sent yet.
        """
        request = Request(scope, receive)
        body = await read_body(request, self._limits)
        forward = asyncio.ensure_future(self._forward(request, body, send))
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({forward, gone}, return_when=asyncio.FIRST_COMPLETED)
            if forward.done():
                forward.result()
        finally:
            forward.cancel()
            gone.cancel()
            await asyncio.gather(forward, gone, return_exceptions=True)

    async def _forward(self, request: Request, body: bytes, send: Send) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            backend = await self._take_backend()
            backend.num_active += 1
            try:
                upstream = await self._ask(backend, request, body)
                await _relay(upstream, send)
                return
            except _NotAnswered as error:
                logger.warning("attempt %d: backend on port %d: %s", attempt, backend.port, error)
                # Time for the gateway to notice that the process has ended.
                await asyncio.sleep(0.1)
            finally:
                backend.num_active -= 1
        raise ApiError(502, "the model server broke off", code="bad_gateway")

    async def _ask(self, backend: Backend, request: Request, body: bytes) -> httpx.Response:
        headers = [
            (name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP
        ]
        url = httpx.URL(path=request.url.path, query=request.url.query.encode())
        outgoing = backend.client.build_request(request.method, url, headers=headers, content=body)
        try:
            return await backend.client.send(outgoing, stream=True)
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: client just closed
            raise _NotAnswered(str(error) or type(error).__name__) from error


class _NotAnswered(Exception):
    """The backend broke before the first byte of its answer."""


async def _relay(upstream: httpx.Response, send: Send) -> None:
    headers = [
        (name, value)
        for name, value in upstream.headers.raw
        if name.lower().decode() not in _HOP_BY_HOP - {"content-length"}
    ]
    try:
        await send(
            {"type": "http.response.start", "status": upstream.status_code, "headers": headers}
        )
        async for piece in upstream.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await upstream.aclose()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
