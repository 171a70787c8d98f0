"""Answers to rows: a prompt and its completion, or why there is none.

An answer that fails spoils no other one. Errors that say nothing about a row (a package that lacks,
a cancellation, a lack of memory) end the evaluation instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from swiftcore.errors import Cancelled, EnvironmentMissing, SwiftError, TransientError
from swiftcore.generation import Completion, SamplingParams
from swiftcore.progress import Progress

Row = Mapping[str, Any]
_T = TypeVar("_T")
_R = TypeVar("_R")


class Encoded(Protocol):
    """A prompt as tokens and as the text they stand for."""

    @property
    def input_ids(self) -> list[int]:
        """Token ids of the prompt."""
        ...

    @property
    def text(self) -> str:
        """Exact text of the tokens."""
        ...


class PromptTemplate(Protocol):
    """Writes a row as a prompt; `swiftcore.template.Template` is one."""

    def encode(self, row: Row, mode: Any = ...) -> Any:
        """Return the row's `Encoded` prompt in mode "infer"."""
        ...


class TemplatedEngine(Protocol):
    """An engine together with the template its model was trained with."""

    @property
    def template(self) -> PromptTemplate:
        """The template that writes prompts."""
        ...

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        batch_size: int,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Answer all prompts, in order; each draws its random numbers by its number."""
        ...


@runtime_checkable
class EachAnswering(Protocol):
    """An engine that knows of each prompt whether it was answered."""

    def answer_each(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        batch_size: int,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> Sequence[Completion | SwiftError]:
        """Answer all prompts as `generate` does; one that fails spoils no other."""
        ...


@dataclass(frozen=True)
class Call:
    """A tool call that an answer makes; `arguments` is None when they are no JSON object."""

    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True)
class Answer:
    """A prompt and its completion, or why there is none.

    Args:
        prompt: text that was asked.
        completion: what came back; None when nothing did.
        error: why nothing came back.
        calls: tool calls of the answer, where tools were offered.
        log_likelihoods: natural logarithms of the probabilities of given continuations, where
            those were asked for instead of a completion.
        num_tokens: tokens of each of those continuations.
        reasoning: what an endpoint tells of its thinking apart from the answer.
    """

    prompt: str
    completion: Completion | None
    error: str | None
    calls: tuple[Call, ...] | None = None
    log_likelihoods: tuple[float, ...] | None = None
    num_tokens: tuple[int, ...] = ()
    reasoning: str = ""

    @property
    def text(self) -> str:
        """The completion's text; empty when there is none."""
        return self.completion.text if self.completion else ""

    @property
    def finish_reason(self) -> str:
        """Why the completion ended; "error" without one, "scored" for likelihoods."""
        if self.completion:
            return self.completion.finish_reason
        return "error" if self.log_likelihoods is None else "scored"


@dataclass(frozen=True)
class Prompt:
    """A row as a prompt, or why it can't be one."""

    ids: list[int]
    text: str
    error: str | None = None


def written_prompt(template: PromptTemplate, row: Row, error: str | None = None) -> Prompt:
    """Return the prompt of a row; `error` says that it can't be asked at all."""
    if error is not None:
        return Prompt([], "", error)
    try:
        encoded = template.encode(row, mode="infer")
        return Prompt(list(encoded.input_ids), encoded.text or "")
    except Exception as err:
        raise_unless_of_this_row(err)
        return Prompt([], "", described(err))


def answer_prompts(
    engine: TemplatedEngine,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    batch_size: int,
    progress: Progress,
) -> list[Answer]:
    """Return an answer a prompt, in order."""
    askable = [prompt.ids for prompt in prompts if prompt.error is None]
    if isinstance(engine, EachAnswering):
        found = engine.answer_each(askable, params, batch_size=batch_size, progress=progress)
        told = [described(each) if isinstance(each, Exception) else each for each in found]
        return _in_order(prompts, told)

    def work(some: Sequence[list[int]]) -> list[Completion]:
        return engine.generate(some, params, batch_size=batch_size, progress=progress)

    return _in_order(prompts, halved(work, askable))


def _in_order(prompts: Sequence[Prompt], found: Sequence[Completion | str]) -> list[Answer]:
    """Return an answer a prompt from those of the prompts that could be asked."""
    outcomes = iter(found)
    answers = []
    for prompt in prompts:
        outcome = prompt.error if prompt.error is not None else next(outcomes)
        failed = isinstance(outcome, str)
        answers.append(
            Answer(prompt.text, None if failed else outcome, outcome if failed else None)
        )
    return answers


def halved(work: Callable[[Sequence[_T]], Sequence[_R]], items: Sequence[_T]) -> list[_R | str]:
    """Do work on items; where it fails, halve the list until the guilty item stands alone.

    Returns:
        A result an item, in order; for one that fails alone, the text of its error.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except Exception as err:
        raise_unless_of_this_row(err)
        if len(items) == 1:
            return [described(err)]
    middle = len(items) // 2
    return [*halved(work, items[:middle]), *halved(work, items[middle:])]


def raise_unless_of_this_row(err: Exception) -> None:
    """Let errors through that say nothing about a row: they would fail every other one too."""
    if isinstance(err, Cancelled | EnvironmentMissing | TransientError | MemoryError):
        raise err


def described(err: Exception) -> str:
    """Put an error in one line, without the position in a batch that only this call knew."""
    if isinstance(err, SwiftError):
        found = f" (found {err.found})" if err.found else ""
        return f"{type(err).__name__}: {err.message}{found}"
    return f"{type(err).__name__}: {err}"
