"""A served model behind the HTTP routes: checks requests against the limits, and generates."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swiftcore.errors import UsageError
from swiftcore.generation.params import Completion, Delta, SamplingParams
from swiftcore.generation.protocol import ServingEngine
from swiftcore.serving.api_errors import ApiError, bad_request, internal_error
from swiftcore.serving.chat import encode_chat
from swiftcore.serving.limits import Limits
from swiftcore.serving.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    GenerationRequest,
    TokenizeRequest,
)

if TYPE_CHECKING:
    from swiftcore.template import Template


@dataclass(frozen=True)
class Prompt:
    """One prompt as tokens, and the settings it is answered with."""

    tokens: list[int]
    params: SamplingParams


class ModelService:
    """One model under one or more names.

    Args:
        engine: generates.
        template: writes chats; the same one the model was trained with.
        names: accepted model names, the first is the main one.
        limits: what a request may cost.
        fingerprint: identity of the served release, shown as `system_fingerprint`.
    """

    def __init__(
        self,
        engine: ServingEngine,
        template: "Template",
        *,
        names: list[str],
        limits: Limits,
        fingerprint: str | None = None,
    ) -> None:
        self.engine = engine
        self.template = template
        self.names = names
        self.limits = limits
        self.fingerprint = fingerprint

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.engine.max_model_len

    def check_model(self, name: str) -> None:
        """Refuse a model this server doesn't have.

        Raises:
            ApiError: 404.
        """
        if name not in self.names:
            raise ApiError(
                404,
                f"the model {name!r} is not served here; served: {', '.join(self.names)}",
                code="model_not_found",
                param="model",
            )

    async def chat_prompt(self, request: ChatRequest) -> Prompt:
        """Return the tokens of a conversation, checked against the limits.

        Raises:
            ApiError: 400.
        """
        # In a thread: a long conversation must not hold up /health and the other streams.
        tokens = await asyncio.to_thread(encode_chat, self.template, request.row())
        # Some families write calls with special tokens, and the parser must see them.
        return self._prompt(tokens, request, special_tokens=request.wants_tool_calls)

    async def completion_prompts(self, request: CompletionRequest) -> list[Prompt]:
        """Return the tokens of plain prompts, checked against the limits.

        Raises:
            ApiError: 400.
        """
        prompts = request.prompts
        if not 1 <= len(prompts) <= self.limits.max_prompts:
            raise bad_request(
                f"prompt: between 1 and {self.limits.max_prompts} prompts a request", param="prompt"
            )
        encode = self.engine.tokenizer.encode
        return [
            self._prompt(
                await asyncio.to_thread(encode, prompt) if isinstance(prompt, str) else prompt,
                request,
            )
            for prompt in prompts
        ]

    async def tokens(self, request: TokenizeRequest) -> list[int]:
        """Return the tokens that a conversation or a text becomes here.

        Raises:
            ApiError: 400.
        """
        if request.prompt is not None:
            return await asyncio.to_thread(self.engine.tokenizer.encode, request.prompt)
        return await asyncio.to_thread(encode_chat, self.template, request.row())

    def text(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens, control tokens included.

        Raises:
            ApiError: 400.
        """
        vocab = self.engine.vocab_size
        if any(not 0 <= token < vocab for token in request.tokens):
            raise bad_request(f"tokens: ids must be from 0 to {vocab - 1}", param="tokens")
        return str(self.engine.tokenizer.decode(request.tokens))

    async def deltas(
        self, prompts: list[Prompt], *, streamed: bool
    ) -> AsyncIterator[tuple[int, Delta]]:
        """Generate for all prompts at once; yield (choice index, piece) as they come.

        Leaving the iterator, for any reason, stops the generation.

        Raises:
            ApiError: 500 when generation failed.
        """
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[tuple[int, Delta | Exception]] = asyncio.Queue()

        def listener(choice: int, item: Delta | Exception) -> None:
            loop.call_soon_threadsafe(news.put_nowait, (choice, item))

        tickets = []
        try:
            for position, prompt in enumerate(prompts):
                for i in range(prompt.params.num_return):
                    choice = position * prompt.params.num_return + i
                    tickets.append(
                        self.engine.submit(
                            prompt.tokens,
                            prompt.params,
                            lambda item, choice=choice: listener(choice, item),
                            index=i,
                            streamed=streamed,
                        )
                    )
            unfinished = len(tickets)
            while unfinished:
                choice, item = await news.get()
                if isinstance(item, UsageError):
                    raise bad_request(str(item)) from item
                if isinstance(item, Exception):
                    raise internal_error() from item
                unfinished -= item.completion is not None
                yield choice, item
        finally:
            for ticket in tickets:
                ticket.cancel()

    async def complete(self, prompts: list[Prompt]) -> list[Completion]:
        """Generate for all prompts and return the finished answers in order.

        Raises:
            ApiError: 500 when generation failed.
        """
        finished: dict[int, Completion] = {}
        async for choice, delta in self.deltas(prompts, streamed=False):
            if delta.completion:
                finished[choice] = delta.completion
        return [finished[choice] for choice in sorted(finished)]

    def _prompt(
        self, tokens: list[int], request: GenerationRequest, *, special_tokens: bool = False
    ) -> Prompt:
        limits, length = self.limits, len(tokens)
        if not tokens:
            raise bad_request("the prompt has no tokens", param="prompt")
        room = self.max_model_len - length
        wanted = request.requested_tokens
        if wanted is not None and wanted > limits.max_new_tokens:
            raise bad_request(
                f"max_tokens: at most {limits.max_new_tokens} on this server", param="max_tokens"
            )
        if room < 1 or (wanted or 0) > room:
            answer = f" and {wanted} were asked for the answer" if wanted else ""
            raise bad_request(
                f"this model's context is {self.max_model_len} tokens; "
                f"the prompt has {length}{answer}",
                param="messages" if isinstance(request, ChatRequest) else "prompt",
                code="context_length_exceeded",
            )
        count = request.n or 1
        if count > limits.max_choices:
            raise bad_request(f"n: at most {limits.max_choices} on this server", param="n")
        vocab = self.engine.vocab_size
        if min(tokens) < 0 or max(tokens) >= vocab:
            raise bad_request(f"prompt: token ids must be from 0 to {vocab - 1}", param="prompt")
        params = SamplingParams(
            max_new_tokens=min(wanted or limits.max_new_tokens, room),
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=request.top_p or 1.0,
            top_k=request.top_k or 0,
            repetition_penalty=request.repetition_penalty or 1.0,
            stop=request.stop_strings,
            seed=request.seed,
            num_return=count,
            ignore_eos=request.ignore_eos,
            skip_special_tokens=not special_tokens,
        )
        refused = self.engine.why_not(params)
        if refused:
            raise bad_request(refused, param=refused.partition(":")[0], code="unsupported_value")
        return Prompt(tokens, params)
