"""One request to a tool's HTTP server, and everything that can go wrong with it.

A request that broke before its first token was begun by nobody who could tell, so it is asked
again; after that the caller hears one error, and other requests go on.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from swiftcore.errors import AnswerFailed, BackendFailed, SwiftError, UsageError
from swiftcore.generation.dialects import Dialect, NotAnAnswer, Piece

_CONNECT_SECONDS = 5.0
_TRIES = 3
_PAUSE_SECONDS = 0.3
_PASSING = {408, 425, 429}
_SHOWN_BYTES = 500
_MAX_LINE_CHARACTERS = 4 << 20


@dataclass(frozen=True)
class ToolPlace:
    """Where a tool's server answers.

    Args:
        url: its address without a path, such as http://127.0.0.1:8101.
        model: the model's name there; an adapter's is its own.
        api_key: sent as a bearer token.
        token_timeout_seconds: longest wait for the next token, the first one included.
        is_running: whether the server's process is there; without a process of ours, always.
        when_ended: called by a request that finds the process ended, before it fails.
    """

    url: str
    model: str
    api_key: str | None = None
    token_timeout_seconds: float = 300.0
    is_running: Callable[[], bool] = lambda: True
    when_ended: Callable[[], None] = lambda: None


class ToolClient:
    """Sends requests to a place and reads the answers; use it from one event loop."""

    def __init__(self, place: ToolPlace, dialect: Dialect) -> None:
        self._place, self._dialect = place, dialect
        headers = {"Authorization": f"Bearer {place.api_key}"} if place.api_key else {}
        self._http = httpx.AsyncClient(
            base_url=place.url,
            headers=headers,
            timeout=httpx.Timeout(place.token_timeout_seconds, connect=_CONNECT_SECONDS, pool=None),
            # The tool itself lets requests wait.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Tell whether the tool answers its health check."""
        try:
            return (await self._http.get("/health", timeout=10.0)).status_code == 200
        except httpx.HTTPError:
            return False

    async def pieces(self, body: Mapping[str, Any]) -> AsyncGenerator[Piece]:
        """Ask for an answer and yield its tokens; leaving the iterator ends the request.

        Raises:
            UsageError: the tool refuses the request.
            AnswerFailed: it did not answer it, broke off, or sent something else.
            BackendFailed: its process has ended.
        """
        for left in range(_TRIES - 1, -1, -1):
            begun = ended = False
            try:
                async for piece in self._streamed(body):
                    begun = begun or bool(piece.tokens)
                    ended = ended or piece.finish_reason is not None
                    yield piece
                if ended:
                    return
                raise _Broken("the answer broke off before its end")
            except (_Broken, httpx.TransportError) as error:
                if ended:
                    return
                slow = isinstance(error, httpx.ReadTimeout)
                if begun or slow or not left or not self._place.is_running():
                    raise self.failure(error) from error
            except NotAnAnswer as error:
                raise self.failure(error) from error
            await asyncio.sleep(_PAUSE_SECONDS)

    async def ask(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request whose answer comes in one piece.

        Raises:
            UsageError, AnswerFailed, BackendFailed: as `pieces`.
        """
        for left in range(_TRIES - 1, -1, -1):
            try:
                response = await self._http.post(self._dialect.path, json=body)
                self._refuse(response.status_code, response.content)
                return _parsed(response.text)
            except (_Broken, httpx.TransportError) as error:
                slow = isinstance(error, httpx.ReadTimeout)
                if slow or not left or not self._place.is_running():
                    raise self.failure(error) from error
            except NotAnAnswer as error:
                raise self.failure(error) from error
            await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError("the last try returns or raises")

    async def _streamed(self, body: Mapping[str, Any]) -> AsyncGenerator[Piece]:
        async with self._http.stream("POST", self._dialect.path, json=body) as response:
            if response.status_code != 200:
                self._refuse(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                name, _, value = line.partition(":")
                if name != "data" or value.strip() == "[DONE]":
                    continue
                piece = self._dialect.piece(_parsed(value))
                if piece is not None:
                    yield piece

    def _refuse(self, status: int, content: bytes) -> None:
        if status == 200:
            return
        said = content[:_SHOWN_BYTES].decode("utf-8", errors="replace")
        if status >= 500 or status in _PASSING:
            raise _Broken(f"status {status}: {said}")
        raise UsageError(
            "the engine's tool refuses the request",
            where=self._place.url,
            found=f"status {status}: {said}",
        )

    def failure(self, error: Exception) -> SwiftError:
        """Return what a caller hears of a request that came to nothing."""
        found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, _Broken | NotAnAnswer):
            found = str(error)
        if not self._place.is_running():
            self._place.when_ended()
            return BackendFailed(
                "the server of the engine's tool has ended",
                where=self._place.url,
                found=found,
                expected="an answer",
                do="see the end of its log",
            )
        if isinstance(error, httpx.ReadTimeout):
            found = f"no token for {self._place.token_timeout_seconds:g} s"
        return AnswerFailed(
            "the engine's tool did not answer a request",
            where=self._place.url,
            found=found,
            expected="an answer",
            do="see the tool's log; other requests are not affected",
        )


class _Broken(Exception):
    """The tool failed for now."""


def _parsed(text: str) -> Mapping[str, Any]:
    if len(text) > _MAX_LINE_CHARACTERS:
        raise NotAnAnswer(f"an event of {len(text)} characters")
    try:
        event = json.loads(text)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise NotAnAnswer(f"no JSON object: {text[:200]!r}")
    return event
