"""The HTTP routes of a served model: OpenAI's chat and completions API, and two health checks."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from swiftcore.generation.logprobs import TokenLogprob
from swiftcore.generation.params import Delta
from swiftcore.serving.api_errors import ApiError
from swiftcore.serving.chat import read_answer
from swiftcore.serving.guard import Guard, read_body
from swiftcore.serving.logprobs import chat_logprobs, text_logprobs
from swiftcore.serving.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    GenerationRequest,
    LikelihoodRequest,
    TokenizeRequest,
    parse,
)
from swiftcore.serving.release import OWNER
from swiftcore.serving.replies import (
    DONE,
    Reply,
    chat_choice,
    chat_delta,
    event,
    text_choice,
    usage,
)
from swiftcore.serving.service import ModelService, Prompt
from swiftcore.serving.traffic import RequestLog, load_logged, note_usage

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
Choices = Callable[[int, Delta], list[dict[str, Any]]]
Tell = Callable[[Sequence[TokenLogprob]], dict[str, Any] | None]
"""Writes log-probabilities into a body; None where the request asks for none."""


def create_app(
    service: ModelService,
    *,
    api_key: str | None = None,
    owned_by: str = OWNER,
    verbose: bool = False,
    log_interval_seconds: float = -1,
) -> FastAPI:
    """Return the application that serves one model.

    Args:
        service: the model.
        api_key: what clients must send as bearer token on /v1 routes; None lets everyone in.
        owned_by: whose the models are, in their list.
        verbose: log every request.
        log_interval_seconds: how often to log what is going on; -1 is never.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with load_logged(lambda: service.load, log_interval_seconds):
            yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="swiftcore", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.add_middleware(Guard, limits=service.limits, api_key=api_key)
    if verbose:
        app.add_middleware(RequestLog)
    _handle_errors(app)
    _add_health(app, service)
    _add_models(app, service, owned_by)
    _add_routes(app, service)
    return app


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> JSONResponse:
        word = "unknown_url" if error.status_code == 404 else "method_not_allowed"
        message = f"{error.detail}: {request.method} {request.url.path}"
        body = ApiError(error.status_code, message, code=word).body()
        return JSONResponse(body, error.status_code, error.headers)


def _add_health(app: FastAPI, service: ModelService) -> None:
    @app.get("/health")
    async def health() -> Response:
        alive = service.alive
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> Response:
        alive = service.alive
        body = {"status": "ready" if alive else "failed", "model": service.names[0]}
        return JSONResponse({**body, "fingerprint": service.fingerprint}, 200 if alive else 503)


def _add_models(app: FastAPI, service: ModelService, owned_by: str) -> None:
    def about(name: str) -> dict[str, Any]:
        length = service.max_model_len
        fields = {"id": name, "object": "model", "created": 0, "owned_by": owned_by}
        return {**fields, "max_model_len": length}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [about(name) for name in service.names]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.served(name)
        return about(name)


def _add_routes(app: FastAPI, service: ModelService) -> None:
    reply_to = _Answering(service)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked = parse(ChatRequest, await read_body(request, service.limits))
        return await reply_to.chat(request, asked, await service.chat_prompt(asked))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        asked = parse(CompletionRequest, await read_body(request, service.limits))
        return await reply_to.plain(request, asked, await service.completion_prompts(asked))

    @app.post("/v1/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        asked = parse(TokenizeRequest, await read_body(request, service.limits))
        tokens = await service.tokens(asked)
        return {"count": len(tokens), "max_model_len": service.max_model_len, "tokens": tokens}

    @app.post("/v1/likelihood")
    async def likelihood(request: Request) -> dict[str, Any]:
        asked = parse(LikelihoodRequest, await read_body(request, service.limits))
        scores = await service.likelihood(asked)
        return {
            "tokens": [score.token for score in scores],
            "logprobs": [score.logprob for score in scores],
            "gaps": [score.gap for score in scores],
        }

    @app.post("/v1/detokenize")
    async def detokenize(request: Request) -> dict[str, Any]:
        asked = parse(DetokenizeRequest, await read_body(request, service.limits))
        return {"prompt": await asyncio.to_thread(service.text, asked)}


class _Answering:
    """Turns prompts into responses, streamed or not."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    async def chat(self, request: Request, asked: ChatRequest, prompt: Prompt) -> Response:
        reply = Reply(asked.model, chat=True, fingerprint=self._service.fingerprint)
        tools = asked.callable_tools
        template = prompt.served.template
        tell = self._teller(asked)
        if asked.stream:
            writer = _ChatWriter(template, tools, tell)
            return self._stream(request, asked, reply, [prompt], writer.opening, writer.choices)
        completions = await self._complete(request, [prompt])
        choices = [
            chat_choice(
                i,
                read_answer(template, done.text, tools),
                done.finish_reason,
                tell(done.shown_logprobs),
            )
            for i, done in enumerate(completions)
        ]
        counts = usage(len(prompt.tokens), completions)
        note_usage(request, asked.model, counts)
        return JSONResponse(reply.whole(choices, counts))

    async def plain(
        self, request: Request, asked: CompletionRequest, prompts: list[Prompt]
    ) -> Response:
        reply = Reply(asked.model, chat=False, fingerprint=self._service.fingerprint)
        tell = self._teller(asked)
        if asked.stream:
            choices_of = partial(_text_choices, tell)
            return self._stream(request, asked, reply, prompts, lambda _: [], choices_of)
        completions = await self._complete(request, prompts)
        choices = [
            text_choice(i, done.text, done.finish_reason, tell(done.shown_logprobs))
            for i, done in enumerate(completions)
        ]
        counts = usage(sum(len(prompt.tokens) for prompt in prompts), completions)
        note_usage(request, asked.model, counts)
        return JSONResponse(reply.whole(choices, counts))

    def _teller(self, asked: GenerationRequest) -> Tell:
        if asked.num_logprobs is None:
            return lambda _: None
        write = chat_logprobs if isinstance(asked, ChatRequest) else text_logprobs
        return partial(write, self._service.token_texts)

    async def _complete(self, request: Request, prompts: list[Prompt]) -> list[Any]:
        limit = self._service.limits.request_timeout_seconds
        return await _while_connected(request, self._service.complete(prompts), limit)

    def _stream(
        self,
        request: Request,
        asked: GenerationRequest,
        reply: Reply,
        prompts: list[Prompt],
        opening: Callable[[int], list[dict[str, Any]]],
        choices: Choices,
    ) -> Response:
        body = self._events(request, asked, reply, prompts, opening, choices)
        return StreamingResponse(
            body,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def _events(
        self,
        request: Request,
        asked: GenerationRequest,
        reply: Reply,
        prompts: list[Prompt],
        opening: Callable[[int], list[dict[str, Any]]],
        choices: Choices,
    ) -> AsyncIterator[bytes]:
        completions = []
        try:
            async with asyncio.timeout(self._service.limits.request_timeout_seconds):
                for index in range(sum(prompt.params.num_return for prompt in prompts)):
                    for choice in opening(index):
                        yield event(reply.chunk([choice]))
                async for index, delta in self._service.deltas(prompts, streamed=True):
                    for choice in choices(index, delta):
                        yield event(reply.chunk([choice]))
                    if delta.completion:
                        completions.append(delta.completion)
        except TimeoutError:
            yield event(_too_slow().body())
            return
        except ApiError as error:
            logger.error("a stream ended early: %s", error.__cause__ or error)
            yield event(error.body())
            return
        counts = usage(sum(len(prompt.tokens) for prompt in prompts), completions)
        note_usage(request, asked.model, counts)
        if asked.include_usage:
            yield event(reply.chunk([], counts))
        yield DONE


class _ChatWriter:
    """Writes the streamed events of chat answers.

    With tools in the request an answer is held until it is complete: only then is it certain which
    part of it is text and which part a call.
    """

    def __init__(self, template: Any, tools: list[Any], tell: Tell) -> None:
        self._template = template
        self._tools = tools
        self._tell = tell

    def opening(self, index: int) -> list[dict[str, Any]]:
        return [chat_delta(index, {"role": "assistant", "content": ""})]

    def choices(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        done = delta.completion
        if not self._tools:
            pieces = [chat_delta(index, {"content": delta.text})] if delta.text else []
            pieces += [chat_delta(index, {}, done.finish_reason)] if done else []
            return self._told(pieces, delta.logprobs)
        if done is None:
            return []
        answer = read_answer(self._template, done.text, self._tools)
        pieces = [chat_delta(index, {"content": answer.content})] if answer.content else []
        for position, call in enumerate(answer.tool_calls):
            pieces.append(chat_delta(index, {"tool_calls": [{"index": position, **call}]}))
        reason = "tool_calls" if answer.tool_calls else done.finish_reason
        return self._told([*pieces, chat_delta(index, {}, reason)], done.shown_logprobs)

    def _told(
        self, pieces: list[dict[str, Any]], logprobs: Sequence[TokenLogprob]
    ) -> list[dict[str, Any]]:
        """Put the log-probabilities of some pieces into the first of them."""
        if pieces and logprobs:
            pieces[0]["logprobs"] = self._tell(logprobs)
        return pieces


def _text_choices(tell: Tell, index: int, delta: Delta) -> list[dict[str, Any]]:
    done = delta.completion
    if not delta.text and not done:
        return []
    reason = done.finish_reason if done else None
    return [text_choice(index, delta.text, reason, tell(delta.logprobs))]


async def _while_connected(
    request: Request, work: Awaitable[ResultT], limit_seconds: float
) -> ResultT:
    """Wait for work, and cancel it when the client leaves or time is up.

    Raises:
        ApiError: 504 when time is up; 499 (nobody reads it) when the client left.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, timeout=limit_seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ApiError(499, "the client closed the connection", code="client_closed")
        raise _too_slow()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_slow() -> ApiError:
    return ApiError(504, "the answer took too long and was stopped", code="timeout")
