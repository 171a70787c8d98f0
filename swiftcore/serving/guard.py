"""What every request passes before a route sees it: its key, the queue, the size of its body."""

import asyncio
import hmac
import logging

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from swiftcore.serving.api_errors import ApiError, internal_error
from swiftcore.serving.limits import Limits

logger = logging.getLogger(__name__)


class Guard:
    """Checks the API key on /v1, limits concurrent generations, and hides crashes from clients.

    Plain ASGI, because the place of a streamed answer must be held until its last byte is sent.
    """

    def __init__(self, app: ASGIApp, limits: Limits, api_key: str | None) -> None:
        self._app = app
        self._limits = limits
        self._api_key = api_key
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal:
            response = JSONResponse(refusal.body(), refusal.status, refusal.headers)
            await response(scope, receive, send)
            return
        generates = scope["method"] == "POST"
        self._active += generates
        try:
            await self._answer(scope, receive, send)
        finally:
            self._active -= generates

    def _refusal(self, scope: Scope) -> ApiError | None:
        under_key = scope["path"] == "/v1" or scope["path"].startswith("/v1/")
        if under_key and not self._knows_key(scope):
            return ApiError(
                401,
                "a valid API key is needed; send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if scope["method"] == "POST" and self._active >= self._limits.max_concurrent_requests:
            return ApiError(
                429,
                "too many requests are being answered; try again",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        return None

    def _knows_key(self, scope: Scope) -> bool:
        if self._api_key is None:
            return True
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._api_key.encode())
        return same and scheme.lower() == "bearer"

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            error = internal_error()
            await JSONResponse(error.body(), error.status)(scope, receive, send)


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the request's body.

    Raises:
        ApiError: 413 when it is too large, 408 when it comes too slowly.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limits.max_body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.max_body_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        raise ApiError(
            408,
            f"the body did not arrive within {limits.body_timeout_seconds:g} s",
            code="request_timeout",
            headers={"Connection": "close"},
        ) from None
    return bytes(body)


def _too_large(limits: Limits) -> ApiError:
    return ApiError(
        413, f"the body is larger than {limits.max_body_bytes} bytes", code="body_too_large"
    )
