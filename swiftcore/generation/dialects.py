"""How each tool is asked for the tokens after a prompt of tokens, and how it answers.

Only tokens are taken from a tool. What ends an answer, its text and its counts come from
`GrowingAnswer`, so they are what our own engine makes of the same tokens. Every setting is written
out: left out, a tool takes it from the model's generation_config.json.

Sources: vllm 0.32 entrypoints/openai/completion; sglang 0.5.23 srt/entrypoints/openai and
srt/sampling/penaltylib; lmdeploy 0.18 serve/openai/endpoints/generate.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from swiftcore.generation.answer import Request
from swiftcore.generation.logprobs import TokenLogprob
from swiftcore.generation.params import FinishReason, SamplingParams

ToolName = Literal["vllm", "sglang", "lmdeploy"]
# What vLLM writes before a token's id.
_TOKEN_ID = "token_id:"


class NotAnAnswer(Exception):
    """What a tool sent is not what its API promises; the text says what it was."""


@dataclass(frozen=True)
class Piece:
    """Some tokens of an answer; `finish_reason` comes with the last ones.

    `logprobs` has an entry for each of them where the tool sent any.
    """

    tokens: list[int]
    finish_reason: FinishReason | None
    logprobs: list[TokenLogprob] | None = None


class Dialect(Protocol):
    """The words of one tool."""

    path: str
    """Route that generates."""
    scores_prompts: bool
    """Whether it tells how likely the tokens of a prompt are."""

    def why_not(self, params: SamplingParams) -> str | None:
        """Return why the tool can't answer as `params` asks; None when it can."""
        ...

    def body(
        self, model: str, request: Request, limit: int, stop_tokens: Sequence[int]
    ) -> dict[str, Any]:
        """Return the request for at most `limit` tokens that ends after any of `stop_tokens`."""
        ...

    def piece(self, event: Mapping[str, Any]) -> Piece | None:
        """Read one event of the answer; None when it carries no tokens.

        Raises:
            NotAnAnswer: it is not what the tool promises, or it tells of an error.
        """
        ...


def dialect_of(tool: ToolName) -> Dialect:
    """Return the words of a tool."""
    return {"vllm": VllmDialect, "sglang": SglangDialect, "lmdeploy": LmdeployDialect}[tool]()


class VllmDialect:
    """vLLM: OpenAI's completions with token ids on both sides."""

    path = "/v1/completions"
    scores_prompts = True

    def why_not(self, params: SamplingParams) -> str | None:
        """Return None: vLLM has every setting."""
        return None

    def body(
        self, model: str, request: Request, limit: int, stop_tokens: Sequence[int]
    ) -> dict[str, Any]:
        """Return the request."""
        return {
            "model": model,
            "prompt": request.prompt,
            "max_tokens": limit,
            "stream": True,
            "return_token_ids": True,
            "stop_token_ids": list(stop_tokens),
            "top_k": request.params.top_k or -1,
            "seed": _seed(request),
            "min_p": 0.0,
            **_shared(request.params),
            **self._logprobs_asked(request.params),
        }

    def _logprobs_asked(self, params: SamplingParams) -> dict[str, Any]:
        if not params.logprobs:
            return {}
        # As text, two tokens may look the same.
        return {"logprobs": params.top_logprobs, "return_tokens_as_token_ids": True}

    def piece(self, event: Mapping[str, Any]) -> Piece | None:
        """Read an event of a streamed completion."""
        _refuse_error(event)
        choices = event.get("choices")
        if choices == []:
            return None
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, Mapping):
            raise NotAnAnswer(f"an event without choices: {str(event)[:200]}")
        piece = _piece(choice.get("token_ids"), choice.get("finish_reason"), event)
        told = choice.get("logprobs")
        return piece if told is None else replace(piece, logprobs=_logprobs(piece.tokens, told))


class SglangDialect(VllmDialect):
    """SGLang: the same route and fields."""

    scores_prompts = False

    def why_not(self, params: SamplingParams) -> str | None:
        """Return why a setting would mean something else here."""
        if params.repetition_penalty != 1:
            return (
                "repetition_penalty: SGLang looks at the answer alone, and everywhere else here "
                "the prompt counts as well; leave it at 1"
            )
        if params.top_logprobs:
            return (
                "top_logprobs: SGLang names the likeliest tokens by texts, which several tokens "
                "may share; logprobs alone works"
            )
        return None

    def _logprobs_asked(self, params: SamplingParams) -> dict[str, Any]:
        return {"logprobs": 0} if params.logprobs else {}


class LmdeployDialect:
    """LMDeploy: its own route, as its completions take no token ids."""

    path = "/generate"
    scores_prompts = False

    def why_not(self, params: SamplingParams) -> str | None:
        """Return why a setting can't be had."""
        if params.seed is not None and not params.greedy:
            return (
                "seed: LMDeploy's route for token ids has none; leave it out, or use temperature 0"
            )
        if params.logprobs:
            return (
                "logprobs: LMDeploy tells them of what top_k and top_p leave over, not of the "
                "model's own probabilities; use infer_backend pt or vllm"
            )
        return None

    def body(
        self, model: str, request: Request, limit: int, stop_tokens: Sequence[int]
    ) -> dict[str, Any]:
        """Return the request."""
        params = request.params
        return {
            "input_ids": request.prompt,
            "max_tokens": limit,
            "stream": True,
            "stop_token_ids": list(stop_tokens),
            # Otherwise the stop token is cut off and can't be counted.
            "include_stop_str_in_output": True,
            "top_k": 1 if params.greedy else params.top_k,
            **_shared(params),
        }

    def piece(self, event: Mapping[str, Any]) -> Piece | None:
        """Read an event of a streamed answer."""
        _refuse_error(event)
        about = event.get("meta_info")
        if not isinstance(about, Mapping):
            raise NotAnAnswer(f"an event without meta_info: {str(event)[:200]}")
        ended = about.get("finish_reason")
        reason = ended.get("type") if isinstance(ended, Mapping) else None
        return _piece(event.get("output_ids"), reason, event)


def _shared(params: SamplingParams) -> dict[str, Any]:
    return {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "repetition_penalty": params.repetition_penalty,
        "ignore_eos": params.ignore_eos,
        "skip_special_tokens": False,
    }


def _seed(request: Request) -> int | None:
    """Return a number for the tool that differs between the answers of one seed."""
    if request.params.seed is None:
        return None
    digest = hashlib.sha256(f"{request.params.seed}:{request.index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _refuse_error(event: Mapping[str, Any]) -> None:
    error = event.get("error")
    if error:
        told = error.get("message") if isinstance(error, Mapping) else error
        raise NotAnAnswer(f"an error in the middle of the answer: {str(told)[:500]}")


def _piece(tokens: Any, reason: Any, event: Mapping[str, Any]) -> Piece:
    ids = [] if tokens is None else tokens
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise NotAnAnswer(f"token ids that are none: {str(event)[:200]}")
    if reason not in (None, "stop", "length"):
        raise NotAnAnswer(f"the answer ended with {reason!r}")
    return Piece(ids, reason)


def _logprobs(tokens: list[int], told: Any) -> list[TokenLogprob]:
    """Read OpenAI's log-probabilities of tokens, whose likeliest tokens are named by their ids."""
    try:
        tops = told.get("top_logprobs") or [None] * len(tokens)
        return [
            TokenLogprob(token, float(logprob), _likeliest(top or {}))
            for token, logprob, top in zip(tokens, told["token_logprobs"], tops, strict=True)
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotAnAnswer(f"log-probabilities that are none: {str(told)[:200]}") from error


def _likeliest(top: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    named = [(int(name.removeprefix(_TOKEN_ID)), float(value)) for name, value in top.items()]
    return tuple(sorted(named, key=lambda each: -each[1]))
