"""What a caller asks of an engine and what it gets back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from swiftcore.errors import UsageError
from swiftcore.generation.logprobs import TokenLogprob
from swiftcore.progress import Progress

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class SamplingParams:
    """How the next tokens are chosen and when an answer ends.

    Args:
        max_new_tokens: most tokens of one answer, the stop token included.
        temperature: 0 is greedy.
        top_p: keep the likeliest tokens whose probabilities reach this sum.
        top_k: keep this many likeliest tokens; 0 keeps all.
        repetition_penalty: divides the score of tokens already seen (Keskar et al. 2019); 1 is off.
        stop: strings that end the answer; they are cut from its text.
        kept_stop: strings that end the answer and stay at the end of its text.
        seed: makes sampling repeatable, whatever else is in the batch; None is random.
        num_return: answers for each prompt.
        ignore_eos: go on past the model's own stop tokens (benchmarks need a fixed length).
        skip_special_tokens: leave special tokens out of the text.
        logprobs: tell how likely each token was, by the model's own logits at temperature 1.
        top_logprobs: tell it of so many likeliest tokens in each place as well.

    Raises:
        UsageError: a value has no meaning; all problems are listed.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    kept_stop: tuple[str, ...] = ()
    seed: int | None = None
    num_return: int = 1
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: bool = False
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "kept_stop", tuple(self.kept_stop))
        rules = {
            "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
            "temperature must be 0 or more": self.temperature >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "top_k must be 0 (all tokens) or more": self.top_k >= 0,
            "repetition_penalty must be above 0": self.repetition_penalty > 0,
            "stop must not hold an empty string": all((*self.stop, *self.kept_stop)),
            "num_return must be at least 1": self.num_return >= 1,
            "top_logprobs must be 0 or more": self.top_logprobs >= 0,
            "top_logprobs needs logprobs": self.logprobs or not self.top_logprobs,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise UsageError("; ".join(broken), where="SamplingParams", found=self)

    @property
    def greedy(self) -> bool:
        """Tell whether the likeliest token is always taken."""
        return self.temperature == 0


@dataclass(frozen=True)
class Completion:
    """One finished answer.

    `token_ids` holds every generated token, the stop token included; `text` is what a reader sees:
    without the stop token, and cut before a stop string. `logprobs` holds one entry for each of the
    tokens, where they were asked for.
    """

    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    logprobs: list[TokenLogprob] | None = None

    @property
    def shown_logprobs(self) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of the tokens that make the text."""
        return tuple(each for each in self.logprobs or () if each.offset is not None)


@dataclass(frozen=True)
class Delta:
    """The next piece of a streamed answer; `completion` comes with the last piece.

    `logprobs` are those of the tokens whose text the piece begins or holds.
    """

    text: str
    completion: Completion | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Engine(Protocol):
    """Anything that turns token prompts into answers."""

    max_model_len: int
    """Most tokens of prompt and answer together."""

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        batch_size: int,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Answer all prompts; results in input order, `num_return` in a row for each prompt.

        `numbers` tells prompts apart that share a seed; by default these are their places.
        """
        ...

    def stream(
        self, prompt: list[int], params: SamplingParams, *, number: int = 0
    ) -> Iterator[Delta]:
        """Answer one prompt piece by piece; `number` is its own among all that share a seed."""
        ...


Decode = Callable[[list[int], bool], str]
"""Turns (token ids, skip special tokens) into text."""
