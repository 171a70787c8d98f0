"""From questions to a file of scored candidates, batch by batch, going on where it ended."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from swiftcore.inference.result_file import ResultFile
from swiftcore.progress import Progress
from swiftcore.rejection_sampling.candidates import ScoredCandidates
from swiftcore.rejection_sampling.drawing import Drawer
from swiftcore.rejection_sampling.questions import NamedQuestion
from swiftcore.rejection_sampling.scoring import Scorer


@dataclass(frozen=True)
class Work:
    """What answers and what scores; both are opened only when something is left to do.

    Args:
        drawer: opens where candidates come from.
        scorer: makes what scores them.
        batch_size: questions between two writes.
    """

    drawer: Callable[[], AbstractContextManager[Drawer]]
    scorer: Callable[[], Scorer]
    batch_size: int


def draw_and_score(
    work: Work, questions: Sequence[NamedQuestion], file: ResultFile, progress: Progress
) -> None:
    """Append a line for each question that the file has none for yet.

    Raises:
        SwiftError: what would fail every other question as well; what is written stays.
    """
    finished = {line["id"] for line in file.lines()}
    waiting = [question for question in questions if question.id not in finished]
    if not waiting:
        return
    scorer = work.scorer()
    with work.drawer() as drawer:
        for start in range(0, len(waiting), work.batch_size):
            batch = waiting[start : start + work.batch_size]
            done = len(questions) - len(waiting) + start
            part = _Part(progress, done, len(batch), len(questions))
            found = scorer.score(batch, drawer.draw(batch, part))
            file.append(_lines(batch, found))
            progress.update(done + len(batch), len(questions), "questions answered")


@dataclass(frozen=True)
class _Part:
    """One batch's share of the whole progress, counted in questions."""

    whole: Progress
    before: int
    num_here: int
    num_questions: int

    def update(self, done: float, total: float | None, text: str) -> None:
        """Pass news on."""
        share = done / total if total else 0.0
        self.whole.update(self.before + share * self.num_here, self.num_questions, text)


def _lines(
    questions: Sequence[NamedQuestion], found: Sequence[ScoredCandidates]
) -> list[dict[str, object]]:
    return [each.as_line(question.origin) for question, each in zip(questions, found, strict=True)]
