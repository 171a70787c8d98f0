"""What a server's log says of its traffic: each request, and how fast tokens come.

Neither tells what was asked or answered.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from swiftcore.generation.protocol import Load

logger = logging.getLogger(__name__)
_USAGE = "usage"


class RequestLog:
    """Logs a line for each request under /v1, once it is answered.

    Plain ASGI, because a streamed answer is over with its last byte only.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log how it was answered."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        state = scope.setdefault("state", {})

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.monotonic() - started
            # As the client wrote it, so that no line end comes into the log.
            path = scope["raw_path"].decode("latin-1")
            told = state.get(_USAGE, "no answer")
            logger.info("%s %s: %d in %.2f s, %s", scope["method"], path, status, seconds, told)


def note_usage(request: Request, model: str, counts: dict[str, int]) -> None:
    """Remember what a request took, for its line in the log."""
    prompt, answer = counts["prompt_tokens"], counts["completion_tokens"]
    setattr(request.state, _USAGE, f"{model}, {prompt} prompt and {answer} answer tokens")


@asynccontextmanager
async def load_logged(load: Callable[[], Load], interval_seconds: float) -> AsyncIterator[None]:
    """Log every so many seconds inside the block what is going on, if anything is; -1 is never.

    Args:
        load: tells what was done since the start, and what is to be done.
        interval_seconds: between two lines.
    """
    if interval_seconds < 0:
        yield
        return
    telling = asyncio.create_task(_tell(load, interval_seconds))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _tell(load: Callable[[], Load], interval_seconds: float) -> None:
    before, then = load(), time.monotonic()
    while True:
        await asyncio.sleep(interval_seconds)
        now, seconds = load(), time.monotonic() - then
        then += seconds
        # An engine that is gone takes its counts with it.
        answered = max(0, now.num_answer_tokens - before.num_answer_tokens)
        read = max(0, now.num_prompt_tokens - before.num_prompt_tokens)
        before = now
        if answered or read or now.num_running or now.num_waiting:
            logger.info(
                "%.1f answer tokens/s, %.1f prompt tokens/s, %d requests running, %d waiting",
                answered / seconds,
                read / seconds,
                now.num_running,
                now.num_waiting,
            )
