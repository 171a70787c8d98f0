"""Scores of candidates: an outcome reward, and a process score from a reward model or a reward."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Protocol

from swiftcore.errors import UsageError
from swiftcore.rejection_sampling.candidates import Candidate, ScoredCandidates
from swiftcore.rejection_sampling.questions import NamedQuestion
from swiftcore.rewards import Reward

_SOLUTION = "solution"
# Columns of a row that say how it was to be learnt and nothing about its answer.
_NO_COLUMNS = ("messages", "rejected_response", "rejected_messages")


class ConversationScorer(Protocol):
    """Gives a score to conversations that end with an answer; a reward model is one."""

    def score(self, conversations: Sequence[Sequence[dict[str, Any]]]) -> list[float | None]:
        """Return a score of each, None where there can be none."""
        ...


@dataclass(frozen=True)
class RewardAsScorer:
    """A registered reward in the place of a reward model."""

    name: str
    reward: Reward


@dataclass(frozen=True)
class Scorer:
    """Scores the candidates of questions, and the dataset's own answers beside them.

    Args:
        orm: outcome reward by its name.
        prm: reward model, or a reward.
    """

    orm: RewardAsScorer | None = None
    prm: ConversationScorer | RewardAsScorer | None = None

    @property
    def compares(self) -> bool:
        """Whether there is anything to score with."""
        return self.orm is not None or self.prm is not None

    def score(
        self,
        questions: Sequence[NamedQuestion],
        drawn: Sequence[list[Candidate] | str],
    ) -> list[ScoredCandidates]:
        """Return all that is known of each question's candidates.

        The dataset's own answer becomes a candidate where there is something to score with.

        Raises:
            UsageError: a reward of a plug-in gives something else than numbers.
        """
        batch = _Batch()
        for question, found in zip(questions, drawn, strict=True):
            batch.add(question, found, with_reference=self.compares)
        orm = None if self.orm is None else batch.rewards(self.orm)
        prm = None if self.prm is None else batch.scores(self.prm)
        return [batch.scored(place, orm, prm) for place in range(len(questions))]


@dataclass
class _Batch:
    """Questions with all their candidates, and the flat list of those that can be scored."""

    questions: list[NamedQuestion] = field(default_factory=list)
    candidates: list[list[Candidate]] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)

    def add(
        self, question: NamedQuestion, found: list[Candidate] | str, *, with_reference: bool
    ) -> None:
        drawn = [] if isinstance(found, str) else list(found)
        if drawn and with_reference and question.reference is not None:
            drawn.append(Candidate.reference(question.reference))
        self.questions.append(question)
        self.candidates.append(drawn)
        self.errors.append(found if isinstance(found, str) else None)

    def rewards(self, scorer: RewardAsScorer) -> list[list[float | None]]:
        """Return what a reward gives to each candidate; None to what is no answer."""
        pairs = self._scorable()
        rows = [self._columns(question) for question, _ in pairs]
        names = sorted({name for row in rows for name in row})
        columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
        texts = [candidate.text for _, candidate in pairs]
        columns.setdefault(_SOLUTION, [None] * len(texts))
        given = scorer.reward(texts, **columns) if texts else []
        return self._spread(_checked(given, len(texts), scorer.name))

    def scores(self, scorer: ConversationScorer | RewardAsScorer) -> list[list[float | None]]:
        """Return the process score of each candidate; None to what is no answer."""
        if isinstance(scorer, RewardAsScorer):
            return self.rewards(scorer)
        conversations = [
            [*question.messages, {"role": "assistant", "content": candidate.text}]
            for question, candidate in self._scorable()
        ]
        given = scorer.score(conversations) if conversations else []
        return self._spread(_checked(given, len(conversations), "prm_model"))

    def scored(
        self,
        place: int,
        orm: list[list[float | None]] | None,
        prm: list[list[float | None]] | None,
    ) -> ScoredCandidates:
        """Return one question's candidates with their scores."""
        return ScoredCandidates(
            self.questions[place].id,
            self.candidates[place],
            None if orm is None else orm[place],
            None if prm is None else prm[place],
            self.errors[place],
        )

    def _scorable(self) -> list[tuple[NamedQuestion, Candidate]]:
        return [
            (question, candidate)
            for question, candidates in zip(self.questions, self.candidates, strict=True)
            for candidate in candidates
            if not candidate.is_empty
        ]

    def _columns(self, question: NamedQuestion) -> dict[str, Any]:
        """Return what a reward may know of a question, the answer to compare with above all."""
        row = {name: value for name, value in question.row.items() if name not in _NO_COLUMNS}
        return {_SOLUTION: question.reference, **row, "messages": question.messages}

    def _spread(self, values: Sequence[float | None]) -> list[list[float | None]]:
        """Return the values of scorable candidates in the places of all."""
        found = iter(values)
        return [
            [None if each.is_empty else next(found) for each in candidates]
            for candidates in self.candidates
        ]


def _checked(values: Any, count: int, name: str) -> list[float | None]:
    """Return what a reward gave, when it is a number or None for each answer.

    Raises:
        UsageError: it is something else.
    """
    listed = list(values) if isinstance(values, Sequence) else None
    if listed is None or len(listed) != count:
        raise UsageError(
            "A reward does not give one value for each answer.",
            where=f"reward {name}",
            found=type(values).__name__ if listed is None else f"{len(listed)} values",
            expected=f"a list of {count}",
        )
    for value in listed:
        if value is not None and (not isinstance(value, Real) or not math.isfinite(value)):
            raise UsageError(
                "A reward gives something that is no number.",
                where=f"reward {name}",
                found=repr(value)[:80],
                expected="a finite number, or None where it does not apply",
            )
    return [None if value is None else float(value) for value in listed]
