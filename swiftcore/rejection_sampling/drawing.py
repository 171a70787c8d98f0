"""Where candidates come from: a model's engine, an endpoint, or the file of an earlier run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from swiftcore.errors import SwiftError
from swiftcore.evaluation.answering import (
    Answer,
    EachAnswering,
    Prompt,
    described,
    halved,
    written_prompt,
)
from swiftcore.evaluation.benchmarks.endpoint import EndpointModel
from swiftcore.generation import Completion, SamplingParams
from swiftcore.inference.answers import AnsweringEngine
from swiftcore.progress import Progress
from swiftcore.rejection_sampling.candidates import Candidate
from swiftcore.rejection_sampling.questions import NamedQuestion
from swiftcore.template.thinking import begun_block

# What OpenAI's chat knows under the names of standard rows.
_CHAT_ROLES = ("system", "user", "assistant")


class Drawer(Protocol):
    """Draws answers to questions."""

    def draw(
        self, questions: Sequence[NamedQuestion], progress: Progress
    ) -> list[list[Candidate] | str]:
        """Return each question's candidates, or why it can't be asked."""
        ...


class EngineDrawer:
    """Draws from a model's engine; each answer has a random stream of its own.

    Args:
        engine: with the template of the model.
        params: how to answer; its seed is that of the whole run.
        num_answers: answers to each question.
        batch_size: answers made at a time.
        think_mark: what begins a think block. One that a prompt has opened already belongs to the
            answer that training is to see.
    """

    def __init__(
        self,
        engine: AnsweringEngine,
        params: SamplingParams,
        num_answers: int,
        batch_size: int,
        think_mark: str = "<think>",
    ) -> None:
        self._engine, self._params = engine, params
        self._num_answers, self._batch_size = num_answers, batch_size
        self._think_mark = think_mark

    def draw(
        self, questions: Sequence[NamedQuestion], progress: Progress
    ) -> list[list[Candidate] | str]:
        """Return each question's candidates, or why it can't be asked."""
        template = self._engine.template
        prompts = [written_prompt(template, each.prompt, each.error) for each in questions]
        wanted = [
            (prompt.ids, question.stream(number))
            for question, prompt in zip(questions, prompts, strict=True)
            for number in range(self._num_answers)
            if prompt.error is None
        ]
        found = iter(self._answers(wanted, progress))
        return [self._candidates(prompt, found) for prompt in prompts]

    def _answers(
        self, wanted: Sequence[tuple[list[int], int]], progress: Progress
    ) -> Sequence[Completion | str]:
        """Return an answer to each prompt from the stream beside it, or what went wrong."""
        engine, params, batch_size = self._engine, self._params, self._batch_size
        if isinstance(engine, EachAnswering):
            outcomes = engine.answer_each(
                [ids for ids, _ in wanted],
                params,
                batch_size=batch_size,
                progress=progress,
                numbers=[stream for _, stream in wanted],
            )
            return [described(each) if isinstance(each, SwiftError) else each for each in outcomes]

        def generate(some: Sequence[tuple[list[int], int]]) -> Sequence[Completion]:
            return engine.generate(
                [ids for ids, _ in some],
                params,
                batch_size=batch_size,
                progress=progress,
                numbers=[stream for _, stream in some],
            )

        return halved(generate, wanted)

    def _candidates(self, prompt: Prompt, found: Any) -> list[Candidate] | str:
        if prompt.error is not None:
            return prompt.error
        begun = begun_block(prompt.text, self._think_mark)
        return [_candidate(next(found), begun) for _ in range(self._num_answers)]


class EndpointDrawer:
    """Draws from a teacher behind an endpoint; what fails for a while is tried again.

    Args:
        endpoint: the teacher.
        params: how to answer; each answer is asked for with a seed of its own.
        num_answers: answers to each question.
    """

    def __init__(self, endpoint: EndpointModel, params: SamplingParams, num_answers: int) -> None:
        self._endpoint, self._params, self._num_answers = endpoint, params, num_answers

    def draw(
        self, questions: Sequence[NamedQuestion], progress: Progress
    ) -> list[list[Candidate] | str]:
        """Return each question's candidates, or why it can't be asked."""
        asked = [_chat_row(question) for question in questions]
        rows = [row for row in asked if isinstance(row, dict) for _ in range(self._num_answers)]
        params = [
            replace(self._params, seed=question.stream(number) ^ (self._params.seed or 0))
            for question, row in zip(questions, asked, strict=True)
            if isinstance(row, dict)
            for number in range(self._num_answers)
        ]
        found = iter(self._endpoint.answer(rows, params, progress))
        return [
            row if isinstance(row, str) else [_told(next(found)) for _ in range(self._num_answers)]
            for row in asked
        ]


class CachedDrawer:
    """Gives out the answers that earlier runs drew.

    Args:
        cached: answers by question.
        num_answers: the most of a question; None gives all.
    """

    def __init__(self, cached: Mapping[str, list[Candidate]], num_answers: int | None) -> None:
        self._cached, self._num_answers = cached, num_answers

    def draw(
        self, questions: Sequence[NamedQuestion], progress: Progress
    ) -> list[list[Candidate] | str]:
        """Return each question's candidates, or that there are none."""
        return [self._candidates(question) for question in questions]

    def _candidates(self, question: NamedQuestion) -> list[Candidate] | str:
        if question.error is not None:
            return question.error
        found = self._cached.get(question.id)
        return "the question is not in cache_files" if not found else found[: self._num_answers]


def _candidate(outcome: Completion | str, begun: str = "") -> Candidate:
    if isinstance(outcome, str):
        return Candidate.failed(outcome)
    text = begun + outcome.text if outcome.text.strip() else ""
    return Candidate(text, outcome.finish_reason, outcome.completion_tokens)


def _told(answer: Answer) -> Candidate:
    if answer.completion is None:
        return Candidate.failed(answer.error or "no answer")
    if answer.calls:
        return Candidate.failed("it calls tools, which are not kept from an endpoint")
    found = _candidate(answer.completion)
    thought = answer.reasoning.strip()
    if not thought:
        return found
    return replace(found, text=f"<think>\n{thought}\n</think>\n\n{found.text}")


def _chat_row(question: NamedQuestion) -> dict[str, Any] | str:
    """Return a question as OpenAI's chat takes it, or why it can't be asked there."""
    if question.error is not None:
        return question.error
    roles = {message["role"] for message in question.messages}
    others = sorted(roles - {*_CHAT_ROLES})
    if others:
        return f"an endpoint is not asked about messages of {', '.join(others)}"
    row: dict[str, Any] = {
        "messages": [
            {"role": message["role"], "content": message["content"]}
            for message in question.messages
        ]
    }
    tools = question.prompt.get("tools")
    if tools:
        row["tools"] = json.loads(tools) if isinstance(tools, str) else tools
    return row
