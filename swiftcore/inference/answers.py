"""Questions become lines of a result file, a group at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swiftcore.errors import SwiftError
from swiftcore.evaluation.answering import (
    EachAnswering,
    Prompt,
    TemplatedEngine,
    described,
    halved,
    raise_unless_of_this_row,
    written_prompt,
)
from swiftcore.generation import Completion, Delta, SamplingParams
from swiftcore.inference.questions import Question
from swiftcore.inference.result_file import ResultFile
from swiftcore.progress import Progress
from swiftcore.serving.logprobs import TokenTexts, chat_logprobs
from swiftcore.template.thinking import begun_block

# Fields of an answer; columns of the row with such a name make room.
ANSWER_FIELDS = (
    "messages",
    "response",
    "labels",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "logprobs",
    "error",
)
# Batches between two writes: between them an engine drains once.
_BATCHES_A_GROUP = 16


class AnsweringEngine(TemplatedEngine, Protocol):
    """An engine with the template that writes its prompts, which can also answer piece by piece."""

    def stream(
        self, prompt: list[int], params: SamplingParams, *, number: int = 0
    ) -> Iterator[Delta]:
        """Answer one prompt piece by piece."""
        ...


@dataclass(frozen=True)
class Work:
    """How questions are answered.

    Args:
        engine: answers.
        params: how.
        batch_size: prompts generated together; -1: all.
        write_batch_size: most answers held before they are written; -1: all.
        on_piece: hears each piece of each answer, which are then given one after another.
        prefix: text that prompts end with and answers start with.
        texts: writes the log-probabilities of tokens, where they are asked for.
        think_mark: what begins a think block.
    """

    engine: AnsweringEngine
    params: SamplingParams
    batch_size: int
    write_batch_size: int
    on_piece: Callable[[Delta], None] | None = None
    prefix: str = ""
    texts: TokenTexts | None = None
    think_mark: str = "<think>"

    def begun(self, prompt: Prompt) -> str:
        """Return the text that a prompt ends with and its answer starts with."""
        return self.prefix or begun_block(prompt.text, self.think_mark)

    def group_size(self, num_questions: int) -> int:
        """Return how many questions are answered between two writes."""
        limit = num_questions if self.write_batch_size < 0 else self.write_batch_size
        if self.on_piece is not None:
            return 1
        wanted = num_questions if self.batch_size < 0 else self.batch_size * _BATCHES_A_GROUP
        return max(1, min(limit, wanted))


def answer_questions(
    work: Work, questions: Sequence[Question], file: ResultFile, progress: Progress
) -> None:
    """Append a line for each question that the file has none for yet, in order.

    A question that can't be asked or answered gets a line with its error.

    Raises:
        SwiftError: something that would fail every other question as well.
    """
    size = work.group_size(len(questions))
    for start in range(file.num_lines, len(questions), size):
        group = questions[start : start + size]
        part = _Part(progress, start, len(questions))
        file.append(_answered(work, group, start, part))
        progress.update(start + len(group), len(questions), "rows answered")


def answer_line(
    work: Work, question: Question, prompt: Prompt, outcome: Completion | str
) -> dict[str, Any]:
    """Return the line of a question: its own fields, and the answer or why there is none."""
    own = {name: value for name, value in question.row.items() if name not in ANSWER_FIELDS}
    asked = [dict(message) for message in question.prompt.get("messages") or ()]
    if isinstance(outcome, str):
        head = {"messages": asked} if asked else {"origin": question.origin}
        return {**own, **head, "response": None, "labels": question.reference, "error": outcome}
    text = work.begun(prompt) + outcome.text
    return {
        **own,
        "messages": [*asked, {"role": "assistant", "content": text}],
        "response": text,
        "labels": question.reference,
        **completion_fields(outcome, work.texts),
    }


def completion_fields(completion: Completion, texts: TokenTexts | None) -> dict[str, Any]:
    """Return what is told of an answer beside its text.

    Args:
        completion: the answer.
        texts: writes log-probabilities, in the form of OpenAI's chat; None: there are none.
    """
    told = {} if texts is None else chat_logprobs(texts, completion.shown_logprobs)
    return {
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        **({"logprobs": {"content": told["content"]}} if told else {}),
    }


@dataclass(frozen=True)
class _Part:
    """One group's share of the whole progress."""

    whole: Progress
    before: int
    num_questions: int

    def update(self, done: float, total: float | None, text: str) -> None:
        """Pass news on, counted in questions."""
        self.whole.update(self.before + done, self.num_questions, text)


def _answered(
    work: Work, group: Sequence[Question], start: int, progress: Progress
) -> list[dict[str, Any]]:
    template = work.engine.template
    prompts = [written_prompt(template, question.prompt, question.error) for question in group]
    numbered = [
        (start + place, prompt) for place, prompt in enumerate(prompts) if prompt.error is None
    ]
    found = dict(zip([n for n, _ in numbered], _outcomes(work, numbered, progress), strict=True))
    return [
        answer_line(work, question, prompt, found.get(start + place, prompt.error or ""))
        for place, (question, prompt) in enumerate(zip(group, prompts, strict=True))
    ]


def _outcomes(
    work: Work, numbered: Sequence[tuple[int, Prompt]], progress: Progress
) -> Sequence[Completion | str]:
    """Return an answer to each prompt, or what went wrong."""
    if work.on_piece is not None:
        return [_streamed(work, number, prompt) for number, prompt in numbered]
    batch_size = max(1, len(numbered)) if work.batch_size < 0 else work.batch_size
    engine = work.engine
    if isinstance(engine, EachAnswering):
        found = engine.answer_each(
            [prompt.ids for _, prompt in numbered],
            work.params,
            batch_size=batch_size,
            progress=progress,
            numbers=[number for number, _ in numbered],
        )
        return [described(each) if isinstance(each, SwiftError) else each for each in found]

    def generate(some: Sequence[tuple[int, Prompt]]) -> Sequence[Completion]:
        return engine.generate(
            [prompt.ids for _, prompt in some],
            work.params,
            batch_size=batch_size,
            progress=progress,
            numbers=[number for number, _ in some],
        )

    return halved(generate, numbered)


def _streamed(work: Work, number: int, prompt: Prompt) -> Completion | str:
    assert work.on_piece is not None
    completion = None
    work.on_piece(Delta(work.begun(prompt)))
    try:
        for delta in work.engine.stream(prompt.ids, work.params, number=number):
            work.on_piece(delta)
            completion = delta.completion
    except SwiftError as err:
        raise_unless_of_this_row(err)
        return described(err)
    assert completion is not None
    return completion
