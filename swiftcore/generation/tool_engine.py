"""An engine whose tokens come from the HTTP server of a tool: vLLM, SGLang or LMDeploy.

Our template makes the prompt's tokens, the tool chooses the next ones, and `GrowingAnswer` says
where the answer ends: what is served this way has the tokens that training saw, and its stops,
text and counts are those of our own engine.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from swiftcore.errors import AnswerFailed, SwiftError, UsageError
from swiftcore.generation.answer import GrowingAnswer, Request
from swiftcore.generation.dialects import Dialect, NotAnAnswer, Piece
from swiftcore.generation.limits import PromptLimits, Stops
from swiftcore.generation.params import Completion, Delta, SamplingParams
from swiftcore.generation.protocol import Listener, Load
from swiftcore.generation.scored_text import text_ids, text_windows
from swiftcore.generation.scores import TokenScore, read_scores, scores_body
from swiftcore.generation.text import decode_tokens
from swiftcore.generation.tool_client import ToolClient, ToolPlace
from swiftcore.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HEALTH_PERIOD_SECONDS = 2.0
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class ToolTicket:
    """A request that was handed in; `cancel` ends it in the tool as well."""

    work: "Future[None]"

    def cancel(self) -> None:
        """Close the connection of the request; the tool then stops."""
        self.work.cancel()


class ToolEngine:
    """Answers token prompts through a tool's server, many at a time.

    Args:
        place: where the tool answers.
        dialect: its words.
        tokenizer: of the model.
        limits: context and vocabulary.
        stops: what ends an answer, the template's stop words included.
    """

    def __init__(
        self,
        place: ToolPlace,
        dialect: Dialect,
        tokenizer: "PreTrainedTokenizerBase",
        limits: PromptLimits,
        stops: Stops,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_model_len, self.vocab_size = limits.max_model_len, limits.vocab_size
        self.num_requests = 0
        self._begun = Load()
        self._place, self._dialect, self._limits, self._stops = place, dialect, limits, stops
        self._healthy, self._closing = True, False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = self._wait(self._opened())
        self._watching = self._begin(self._watch())

    @property
    def alive(self) -> bool:
        """Tell whether the tool's process runs and answered its last health check."""
        return self._thread.is_alive() and self._healthy and self._place.is_running()

    @property
    def load(self) -> Load:
        """What was done since the start, and what is to be done; a tool's own queue is waiting."""
        return replace(self._begun, num_waiting=self.num_requests - self._begun.num_running)

    def why_not(self, params: SamplingParams) -> str | None:
        """Return why the tool can't answer as `params` asks; None when it can."""
        return self._dialect.why_not(params)

    def submit(
        self,
        prompt: list[int],
        params: SamplingParams,
        listener: Listener,
        *,
        index: int = 0,
        streamed: bool = True,
    ) -> ToolTicket:
        """Send a prompt; the listener gets each `Delta`, or the exception that ended the request.

        Raises:
            UsageError: the prompt can't be answered, or not in this way.
        """
        request = self._request(prompt, params, index, streamed=streamed)
        return ToolTicket(self._begin(self._serve(request, listener)))

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        batch_size: int,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Answer all prompts, `batch_size` at a time, `num_return` in a row for each prompt.

        `numbers` tells prompts apart that share a seed; by default these are their places.

        Raises:
            UsageError: a prompt is empty, or leaves no room for an answer; it says which one.
            AnswerFailed: the tool did not answer one of them.
        """
        for position, prompt in enumerate(prompts):
            self._limits.check(prompt, where=f"prompt {position}")
        completions = []
        for outcome in self.answer_each(
            prompts, params, batch_size=batch_size, progress=progress, numbers=numbers
        ):
            if isinstance(outcome, Exception):
                raise outcome
            completions.append(outcome)
        return completions

    def answer_each(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        batch_size: int,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Completion | SwiftError]:
        """Answer all prompts as `generate` does; one that fails spoils no other."""
        if batch_size < 1:
            raise UsageError("batch_size must be at least 1", found=batch_size)
        jobs = [
            (prompt, number * params.num_return + i)
            for number, prompt in zip(numbers or range(len(prompts)), prompts, strict=True)
            for i in range(params.num_return)
        ]
        return self._wait(self._answer_all(jobs, params, batch_size, progress or Silent()))

    def stream(
        self, prompt: list[int], params: SamplingParams, *, number: int = 0
    ) -> Iterator[Delta]:
        """Answer one prompt piece by piece; the last piece carries the completion.

        `number` is the prompt's own among all that share a seed.

        Raises:
            UsageError: the prompt can't be answered, or not in this way.
            AnswerFailed: the tool did not answer.
        """
        pieces: SimpleQueue[Delta | Exception] = SimpleQueue()
        ticket = self.submit(prompt, params, pieces.put, index=number)
        try:
            while True:
                piece = pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.completion:
                    return
        finally:
            ticket.cancel()

    def scores(self, prompt: list[int], continuation: list[int]) -> list[TokenScore]:
        """Return how likely each token of a continuation is after what stands before it.

        Raises:
            UsageError: this tool doesn't tell, or there is nothing to score, or no room.
            AnswerFailed: it did not answer.
        """
        return self._wait(self._scored(prompt, continuation))

    def log_likelihoods(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        *,
        batch_size: int,
        progress: Progress | None = None,
    ) -> list[float]:
        """Return the log-likelihood of each continuation after its prompt, in nats.

        Raises:
            UsageError, AnswerFailed: as `scores`.
        """
        return self._wait(self._score_all(pairs, batch_size, progress or Silent()))

    def text_ids(self, text: str) -> list[int]:
        """Return the tokens of plain text, without any that start or end a sequence."""
        return text_ids(self.tokenizer, text)

    def text_windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Cut a text into (token before, tokens to score) windows that cover it."""
        # A tool wants room for one more token, even where only the prompt is scored.
        return text_windows(self.tokenizer, text, self.max_model_len - 1)

    def close(self) -> None:
        """End all requests and the thread; the tool's server stays."""
        if not self._thread.is_alive():
            return
        self._wait(self._closed())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)

    async def _opened(self) -> ToolClient:
        return ToolClient(self._place, self._dialect)

    async def _closed(self) -> None:
        self._closing = True
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()

    async def _watch(self) -> None:
        while True:
            self._healthy = await self._client.healthy()
            await asyncio.sleep(_HEALTH_PERIOD_SECONDS)

    async def _serve(self, request: Request, listener: Listener) -> None:
        self.num_requests += 1
        try:
            await self._relay(request, listener)
        except asyncio.CancelledError:
            if self._closing:
                listener(SwiftError("the server is stopping"))
            raise
        except Exception as error:
            listener(error)
        finally:
            self.num_requests -= 1

    async def _relay(self, request: Request, listener: Listener) -> None:
        stop_tokens = frozenset() if request.params.ignore_eos else self._stops.tokens
        answer = GrowingAnswer(request, stop_tokens, self._decode, self.max_model_len)
        body = self._dialect.body(self._place.model, request, answer.limit, sorted(stop_tokens))
        finished = False
        try:
            async with aclosing(self._client.pieces(body)) as pieces:
                async for piece in pieces:
                    self._check_told(piece, request)
                    self._count(piece, request)
                    finished = finished or _taken(answer, piece, listener)
                    if finished and not piece.finish_reason:
                        return  # A stop string, which the tool is not told of.
        finally:
            self._begun += Load(num_running=-bool(request.tokens))

    def _count(self, piece: Piece, request: Request) -> None:
        first = bool(piece.tokens) and not request.tokens
        num_prompt_tokens = len(request.prompt) if first else 0
        self._begun += Load(num_prompt_tokens, len(piece.tokens), int(first))

    def _check_told(self, piece: Piece, request: Request) -> None:
        """Refuse tokens that come without the log-probabilities which were asked for."""
        if request.params.logprobs and piece.tokens and piece.logprobs is None:
            raise self._client.failure(NotAnAnswer("tokens without log-probabilities"))

    async def _answer_all(
        self,
        jobs: Sequence[tuple[list[int], int]],
        params: SamplingParams,
        batch_size: int,
        progress: Progress,
    ) -> list[Completion | SwiftError]:
        gate = asyncio.Semaphore(batch_size)
        num_done = 0

        async def answer(prompt: list[int], index: int) -> Completion | SwiftError:
            nonlocal num_done
            outcomes: list[Delta | Exception] = []
            try:
                request = self._request(prompt, params, index)
            except UsageError as error:
                return error
            async with gate:
                await self._serve(request, outcomes.append)
            num_done += 1
            progress.update(num_done, len(jobs), f"{len(jobs) - num_done} to come")
            return _outcome(outcomes[-1])

        return await _all_or_none([answer(prompt, index) for prompt, index in jobs])

    async def _score_all(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        batch_size: int,
        progress: Progress,
    ) -> list[float]:
        gate = asyncio.Semaphore(batch_size)
        num_done = 0

        async def score(prompt: list[int], continuation: list[int]) -> float:
            nonlocal num_done
            async with gate:
                scores = await self._scored(prompt, continuation)
            num_done += 1
            progress.update(num_done, len(pairs), f"{num_done} prompts scored")
            return sum(score.logprob for score in scores)

        return await _all_or_none([score(*pair) for pair in pairs])

    async def _scored(self, prompt: list[int], continuation: list[int]) -> list[TokenScore]:
        if not self._dialect.scores_prompts:
            raise UsageError(
                "this engine's tool does not tell how likely given tokens are",
                where="infer_backend",
                expected="pt | vllm",
            )
        if not prompt or not continuation:
            raise UsageError("nothing to score", where="continuation")
        ids = [*prompt, *continuation]
        self._limits.check(ids, where="prompt and continuation")
        reply = await self._client.ask(scores_body(self._place.model, ids))
        try:
            return read_scores(reply, ids, len(continuation))
        except NotAnAnswer as error:
            raise self._client.failure(error) from error

    def _request(
        self, prompt: list[int], params: SamplingParams, index: int, *, streamed: bool = False
    ) -> Request:
        self._limits.check(prompt, where="prompt")
        refused = self.why_not(params)
        if refused:
            raise UsageError(refused, where="SamplingParams")
        if self._stops.strings and not params.ignore_eos:
            params = replace(params, stop=(*params.stop, *self._stops.strings))
        return Request(list(prompt), params, index, streamed)

    def _decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return decode_tokens(self.tokenizer, ids, skip_special_tokens)

    def _begin(self, work: Coroutine[Any, Any, ResultT]) -> "Future[ResultT]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        future = self._begin(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _taken(answer: GrowingAnswer, piece: Piece, listener: Listener) -> bool:
    """Pass on what a piece makes certain; tell whether the answer is complete."""
    most = answer.request.params.top_logprobs
    for place, token in enumerate(piece.tokens):
        logprob = piece.logprobs[place] if piece.logprobs else None
        # vLLM adds the token itself to the likeliest ones.
        told = logprob and replace(logprob, top=logprob.top[:most])
        delta = answer.take(token, told)
        if delta.text or delta.completion:
            listener(delta)
        if delta.completion:
            return True
    if piece.finish_reason:
        listener(answer.end(piece.finish_reason))
    return piece.finish_reason is not None


def _outcome(last: Delta | Exception) -> Completion | SwiftError:
    """Return an answer or why there is none.

    Raises:
        Exception: what says nothing about this one request.
    """
    if isinstance(last, AnswerFailed | UsageError):
        return last
    if isinstance(last, Exception):
        raise last
    assert last.completion is not None
    return last.completion


async def _all_or_none(works: Sequence[Coroutine[Any, Any, ResultT]]) -> list[ResultT]:
    """Wait for all; when one raises, none goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
