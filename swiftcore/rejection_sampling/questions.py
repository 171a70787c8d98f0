"""The questions that answers are drawn for: known by their content, in parts of a dataset."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swiftcore.inference.questions import Question

_ID_LETTERS = 32


@dataclass(frozen=True)
class NamedQuestion:
    """One question and what it is known by.

    Args:
        id: digest of the row, and a number where the same row came before.
        origin: file and line.
        row: the standard row.
        prompt: the row that is asked, without the answer it ends with.
        reference: that answer; None where the row ends with a question.
        error: why it can't be asked.
    """

    id: str
    origin: str
    row: Mapping[str, Any]
    prompt: Mapping[str, Any]
    reference: str | None
    error: str | None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation that is to be answered."""
        return [dict(message) for message in self.prompt.get("messages") or ()]

    def stream(self, candidate: int) -> int:
        """Return the number of the random stream that one of its answers is drawn from.

        It depends on nothing else: the same answer comes in any batch, part and order.
        """
        digest = hashlib.sha256(f"{self.id}:{candidate}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


def name_questions(questions: Iterable[Question], system: str | None = None) -> list[NamedQuestion]:
    """Give questions their names, and a system prompt to those that bring none.

    Args:
        questions: of the whole dataset, in its order.
        system: the system prompt.
    """
    seen: Counter[str] = Counter()
    named = []
    for question in questions:
        digest = _digest(question.row)
        seen[digest] += 1
        name = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        prompt = _with_system(question.prompt, system)
        named.append(
            NamedQuestion(
                name, question.origin, question.row, prompt, question.reference, question.error
            )
        )
    return named


def part_of(
    questions: Sequence[NamedQuestion], data_range: Sequence[int] | None
) -> Sequence[NamedQuestion]:
    """Return one part of a dataset; the parts differ by at most one row and leave none out.

    Args:
        questions: all of them.
        data_range: number of the part, from 0, and number of parts; None takes all.
    """
    if data_range is None:
        return questions
    part, num_parts = data_range
    start, stop = (len(questions) * bound // num_parts for bound in (part, part + 1))
    return questions[start:stop]


def digest_of(questions: Iterable[NamedQuestion]) -> str:
    """Return one digest of questions in their order."""
    whole = hashlib.sha256()
    for question in questions:
        system = json.dumps(question.messages[:1], sort_keys=True)
        whole.update(f"{question.id}\0{system}\n".encode())
    return whole.hexdigest()


def _digest(row: Mapping[str, Any]) -> str:
    written = json.dumps(row, sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()[:_ID_LETTERS]


def _with_system(prompt: Mapping[str, Any], system: str | None) -> Mapping[str, Any]:
    messages = prompt.get("messages") or ()
    if system is None or not messages or messages[0]["role"] == "system":
        return prompt
    return {**prompt, "messages": [{"role": "system", "content": system}, *messages]}
