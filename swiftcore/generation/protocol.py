"""What a server needs of an engine: prompts of many callers in, pieces of their answers out.

`Batcher` is one, over a model in this process; `ToolEngine` another, over the server of a tool.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from swiftcore.generation.params import Delta, SamplingParams
from swiftcore.generation.scores import TokenScore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Listener = Callable[[Delta | Exception], None]
"""Hears each piece of an answer, or what ended it; it is called from another thread."""


class Ticket(Protocol):
    """A request that was handed in."""

    def cancel(self) -> None:
        """Stop generating soon; the listener hears nothing more."""
        ...


@dataclass(frozen=True)
class Load:
    """What an engine has done since it started, and what it has to do.

    Args:
        num_prompt_tokens: of prompts whose answers have begun.
        num_answer_tokens: generated, stop tokens included.
        num_running: requests whose answers have begun.
        num_waiting: those whose have not.
    """

    num_prompt_tokens: int = 0
    num_answer_tokens: int = 0
    num_running: int = 0
    num_waiting: int = 0

    def __add__(self, other: "Load") -> "Load":
        """Return what two engines do together."""
        return Load(
            self.num_prompt_tokens + other.num_prompt_tokens,
            self.num_answer_tokens + other.num_answer_tokens,
            self.num_running + other.num_running,
            self.num_waiting + other.num_waiting,
        )


class ServingEngine(Protocol):
    """Answers the requests of many callers at once, from any thread."""

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The model's tokenizer."""
        ...

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    @property
    def vocab_size(self) -> int:
        """How many token ids the model has."""
        ...

    @property
    def alive(self) -> bool:
        """Tell whether requests can be answered."""
        ...

    @property
    def num_requests(self) -> int:
        """Requests that are being answered or wait."""
        ...

    @property
    def load(self) -> Load:
        """What was done since the start, and what is to be done."""
        ...

    def why_not(self, params: SamplingParams) -> str | None:
        """Return why this engine can't answer as `params` asks; None when it can."""
        ...

    def submit(
        self,
        prompt: list[int],
        params: SamplingParams,
        listener: Listener,
        *,
        index: int = 0,
        streamed: bool = True,
    ) -> Ticket:
        """Queue a prompt; the listener gets each `Delta`, or the exception that ended the request.

        Raises:
            UsageError: the prompt can't be answered.
        """
        ...

    def close(self) -> None:
        """Stop; requests that are not finished hear an error."""
        ...


@runtime_checkable
class ScoringEngine(Protocol):
    """An engine that tells how likely given tokens are."""

    def scores(self, prompt: list[int], continuation: list[int]) -> list[TokenScore]:
        """Return the score of each token of a continuation.

        Raises:
            UsageError: it can't be scored here.
        """
        ...
