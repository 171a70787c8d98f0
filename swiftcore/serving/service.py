"""A served model behind the HTTP routes: checks requests against the limits, and generates."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from swiftcore.errors import SwiftError, UsageError
from swiftcore.generation.params import Completion, Delta, SamplingParams
from swiftcore.generation.protocol import Load, ScoringEngine, ServingEngine
from swiftcore.generation.scores import TokenScore
from swiftcore.serving.api_errors import ApiError, bad_request, internal_error
from swiftcore.serving.chat import encode_chat
from swiftcore.serving.limits import Limits, SamplingDefaults
from swiftcore.serving.logprobs import TokenTexts
from swiftcore.serving.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    GenerationRequest,
    LikelihoodRequest,
    TokenizeRequest,
)

if TYPE_CHECKING:
    from swiftcore.template import Template


@dataclass(frozen=True)
class Served:
    """What answers under a name: an engine, and the template its model was trained with."""

    engine: ServingEngine
    template: "Template"


@dataclass(frozen=True)
class Prompt:
    """One prompt as tokens, the settings it is answered with, and who answers it.

    The name was looked up once: it may be withdrawn while the prompt is answered.
    """

    tokens: list[int]
    params: SamplingParams
    served: Served


class ModelService:
    """One model under one or more names, and adapters of it under names of their own.

    Args:
        engine: generates.
        template: writes chats; the same one the model was trained with.
        names: accepted model names, the first is the main one.
        limits: what a request may cost.
        defaults: how a request is answered that does not say.
        fingerprint: identity of the served release, shown as `system_fingerprint`.
        adapters: adapters over the model by name.

    Attributes:
        hidden: what answers under names that are not listed, by name.
    """

    def __init__(
        self,
        engine: ServingEngine,
        template: "Template",
        *,
        names: list[str],
        limits: Limits,
        defaults: SamplingDefaults | None = None,
        fingerprint: str | None = None,
        adapters: Mapping[str, Served] | None = None,
    ) -> None:
        self.engine = engine
        self.template = template
        self.limits = limits
        self.defaults = defaults or SamplingDefaults()
        self.fingerprint = fingerprint
        # Adapters have the tokens of their model.
        self.token_texts = TokenTexts(engine.tokenizer)
        self.hidden: Mapping[str, Served] = {}
        self._own = {name: Served(engine, template) for name in names}
        self._served = {**self._own, **(adapters or {})}

    @property
    def names(self) -> list[str]:
        """The model names that clients may use, the main one first."""
        return list(self._served)

    @property
    def alive(self) -> bool:
        """Whether everything that is served can answer."""
        return all(served.engine.alive for served in self._served.values())

    def close(self) -> None:
        """Stop answering."""
        for engine in self._engines:
            engine.close()

    def change_adapters(self, adapters: Mapping[str, Served], fingerprint: str) -> None:
        """Serve other adapters beside the model, in one step; requests under way go on.

        Args:
            adapters: all that answer from now on, by name.
            fingerprint: identity of what is served now.
        """
        self._served = {**self._own, **adapters}
        self.fingerprint = fingerprint
        self.hidden = {}

    @property
    def load(self) -> Load:
        """What was done since the start, and what is to be done, by all engines together."""
        return sum((engine.load for engine in self._engines), Load())

    @property
    def _engines(self) -> list[ServingEngine]:
        return list({id(each.engine): each.engine for each in self._served.values()}.values())

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.engine.max_model_len

    def served(self, name: str) -> Served:
        """Return what answers under a name.

        Raises:
            ApiError: 404.
        """
        found = self._served.get(name) or self.hidden.get(name)
        if found is None:
            raise ApiError(
                404,
                f"the model {name!r} is not served here; served: {', '.join(self.names)}",
                code="model_not_found",
                param="model",
            )
        return found

    async def chat_prompt(self, request: ChatRequest) -> Prompt:
        """Return the tokens of a conversation, checked against the limits.

        Raises:
            ApiError: 400, or 404 for an unknown model.
        """
        served = self.served(request.model)
        # In a thread: a long conversation must not hold up /health and the other streams.
        tokens = await asyncio.to_thread(encode_chat, served.template, request.row())
        # Some families write calls with special tokens, and the parser must see them.
        return self._prompt(served, tokens, request, special_tokens=request.wants_tool_calls)

    async def completion_prompts(self, request: CompletionRequest) -> list[Prompt]:
        """Return the tokens of plain prompts, checked against the limits.

        Raises:
            ApiError: 400, or 404 for an unknown model.
        """
        prompts = request.prompts
        served = self.served(request.model)
        encode = served.engine.tokenizer.encode
        if not 1 <= len(prompts) <= self.limits.max_prompts:
            raise bad_request(
                f"prompt: between 1 and {self.limits.max_prompts} prompts a request", param="prompt"
            )
        return [
            self._prompt(
                served,
                await asyncio.to_thread(encode, prompt) if isinstance(prompt, str) else prompt,
                request,
            )
            for prompt in prompts
        ]

    async def tokens(self, request: TokenizeRequest) -> list[int]:
        """Return the tokens that a conversation or a text becomes here.

        Raises:
            ApiError: 400, or 404 for an unknown model.
        """
        served = self.served(request.model)
        if request.prompt is not None:
            return await asyncio.to_thread(served.engine.tokenizer.encode, request.prompt)
        return await asyncio.to_thread(encode_chat, served.template, request.row())

    def text(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens, control tokens included.

        Raises:
            ApiError: 400, or 404 for an unknown model.
        """
        engine = self.served(request.model).engine
        if any(not 0 <= token < engine.vocab_size for token in request.tokens):
            raise bad_request(
                f"tokens: ids must be from 0 to {engine.vocab_size - 1}", param="tokens"
            )
        return str(engine.tokenizer.decode(request.tokens))

    async def likelihood(self, request: LikelihoodRequest) -> list[TokenScore]:
        """Return how likely each token of a given answer to a conversation is.

        Raises:
            ApiError: 400, also where the engine doesn't tell; 404 for an unknown model; 500.
        """
        served = self.served(request.model)
        if not isinstance(served.engine, ScoringEngine):
            raise bad_request(
                "this model's engine does not tell how likely given tokens are",
                code="unsupported_value",
            )
        prompt = await asyncio.to_thread(encode_chat, served.template, request.row())
        answer = served.engine.tokenizer(request.answer, add_special_tokens=False).input_ids
        try:
            return await asyncio.to_thread(served.engine.scores, prompt, answer)
        except UsageError as error:
            raise bad_request(str(error)) from error
        except SwiftError as error:
            raise internal_error() from error

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
                        prompt.served.engine.submit(
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
        self,
        served: Served,
        tokens: list[int],
        request: GenerationRequest,
        *,
        special_tokens: bool = False,
    ) -> Prompt:
        limits, length = self.limits, len(tokens)
        engine = served.engine
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
        told = request.num_logprobs
        if told is not None and told > limits.max_logprobs:
            name = "top_logprobs" if isinstance(request, ChatRequest) else "logprobs"
            raise bad_request(f"{name}: at most {limits.max_logprobs} on this server", param=name)
        vocab = engine.vocab_size
        if min(tokens) < 0 or max(tokens) >= vocab:
            raise bad_request(f"prompt: token ids must be from 0 to {vocab - 1}", param="prompt")
        params = SamplingParams(
            max_new_tokens=min(wanted or limits.max_new_tokens, room),
            **self._chosen_how(request),
            stop=request.stop_strings,
            seed=request.seed,
            num_return=count,
            ignore_eos=request.ignore_eos,
            skip_special_tokens=not special_tokens,
            logprobs=told is not None,
            top_logprobs=told or 0,
        )
        refused = engine.why_not(params)
        if refused:
            raise bad_request(refused, param=refused.partition(":")[0], code="unsupported_value")
        return Prompt(tokens, params, served)

    def _chosen_how(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the settings of sampling: those of the request, else the server's."""
        return {
            name: default if (asked := getattr(request, name)) is None else asked
            for name, default in asdict(self.defaults).items()
        }
