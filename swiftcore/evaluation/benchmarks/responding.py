"""Who answers: a model in this process. A served one is in `endpoint`."""

from collections.abc import Sequence
from typing import Any, Protocol

from swiftcore.errors import SwiftError, UsageError
from swiftcore.evaluation.answering import (
    Answer,
    Call,
    Prompt,
    Row,
    TemplatedEngine,
    answer_prompts,
    halved,
    written_prompt,
)
from swiftcore.generation import SamplingParams
from swiftcore.progress import Progress


class Responder(Protocol):
    """Anything that answers rows."""

    def answer(
        self, rows: Sequence[Row], params: SamplingParams, progress: Progress
    ) -> list[Answer]:
        """Answer all rows, in order."""
        ...

    def compare(
        self, rows: Sequence[Row], choices: Sequence[Sequence[str]], progress: Progress
    ) -> list[Answer]:
        """Return the log-likelihood of each row's choices as its answer."""
        ...

    def score_texts(self, texts: Sequence[str], progress: Progress) -> list[Answer]:
        """Return the log-likelihood of whole texts."""
        ...


class LocalModel:
    """A model in this process, with the template it was trained with.

    Args:
        engine: generates; for likelihoods it also has `log_likelihoods` and `text_ids`.
        batch_size: prompts worked on together.
    """

    def __init__(self, engine: TemplatedEngine, batch_size: int) -> None:
        self._engine: Any = engine
        self._batch_size = batch_size

    def answer(
        self, rows: Sequence[Row], params: SamplingParams, progress: Progress
    ) -> list[Answer]:
        """Answer all rows, in order; where tools are offered, read the calls of the answer."""
        prompts = [written_prompt(self._engine.template, row) for row in rows]
        answers = answer_prompts(self._engine, prompts, params, self._batch_size, progress)
        return [self._with_calls(row, a) for row, a in zip(rows, answers, strict=True)]

    def compare(
        self, rows: Sequence[Row], choices: Sequence[Sequence[str]], progress: Progress
    ) -> list[Answer]:
        """Score each row's choices as continuations of its prompt."""
        prompts = [written_prompt(self._engine.template, row) for row in rows]
        tasks = [
            [self._continuation(prompt, choice) for choice in offered]
            for prompt, offered in zip(prompts, choices, strict=True)
        ]
        return self._scored(prompts, tasks, progress)

    def score_texts(self, texts: Sequence[str], progress: Progress) -> list[Answer]:
        """Score texts as they stand, in windows that follow each other."""
        prompts, tasks = [], []
        for text in texts:
            windows = self._engine.text_windows(text)
            error = None if windows else "the text has fewer than two tokens"
            prompts.append(Prompt([], text, error))
            tasks.append(windows)
        answers = self._scored(prompts, tasks, progress)
        return [_as_one(answer) for answer in answers]

    def _continuation(self, prompt: Prompt, choice: str) -> tuple[list[int], list[int]]:
        spaced = prompt.text[-1:].isspace() or not prompt.text
        return prompt.ids, self._engine.text_ids(choice if spaced else f" {choice}")

    def _scored(
        self,
        prompts: Sequence[Prompt],
        tasks: Sequence[list[tuple[list[int], list[int]]]],
        progress: Progress,
    ) -> list[Answer]:
        def work(places: Sequence[int]) -> list[tuple[float, ...]]:
            pairs = [pair for place in places for pair in tasks[place]]
            found = iter(
                self._engine.log_likelihoods(pairs, batch_size=self._batch_size, progress=progress)
            )
            return [tuple(next(found) for _ in tasks[place]) for place in places]

        askable = [place for place, prompt in enumerate(prompts) if prompt.error is None]
        outcomes = dict(zip(askable, halved(work, askable), strict=True))
        return [
            self._scored_answer(prompt, outcomes.get(place, prompt.error), tasks[place])
            for place, prompt in enumerate(prompts)
        ]

    def _scored_answer(
        self, prompt: Prompt, outcome: Any, pairs: list[tuple[list[int], list[int]]]
    ) -> Answer:
        if isinstance(outcome, str):
            return Answer(prompt.text, None, outcome)
        counts = tuple(len(continuation) for _, continuation in pairs)
        return Answer(prompt.text, None, None, None, outcome, counts)

    def _with_calls(self, row: Row, answer: Answer) -> Answer:
        if not row.get("tools") or answer.completion is None:
            return answer
        try:
            parsed = self._engine.template.parse_tool_calls(answer.text, row["tools"])
        except SwiftError:
            return answer
        calls = [Call(call.name, call.arguments) for call in parsed.calls]
        calls += [Call("", None) for _ in parsed.problems]
        return Answer(answer.prompt, answer.completion, None, tuple(calls))


def _as_one(answer: Answer) -> Answer:
    """Add up the windows of a text."""
    if answer.log_likelihoods is None:
        return answer
    total = (sum(answer.log_likelihoods),)
    return Answer(answer.prompt, None, None, None, total, (sum(answer.num_tokens),))


def refuse_likelihoods() -> UsageError:
    """Return what is said where no likelihood can be had."""
    return UsageError(
        "A served endpoint writes answers; it gives no likelihood of a given text.",
        where="evaluate.eval_dataset_args",
        found="method loglikelihood, or the benchmark perplexity",
        expected="method generation",
        do="leave method out, or evaluate the model folder itself with --model",
    )
