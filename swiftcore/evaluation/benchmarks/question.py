"""What a benchmark is made of: questions, grades, and the functions that make both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.intervals import Estimate
from swiftcore.recipe.benchmarks import BenchmarkArgs


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Args:
        subset: the part it belongs to.
        row: what is asked, as a standard row: messages, perhaps tools.
        target: the right answer, for people.
        text: the question alone, without examples and instructions.
        facts: what the grader needs to know.
        choices: continuations whose likelihoods are compared, by that method.
        weights: how often a metric counts; 1 where it is not named.
    """

    subset: str
    row: dict[str, Any]
    target: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    weights: dict[str, float] | None = None

    @property
    def bare(self) -> dict[str, Any]:
        """Return the question alone as a row, to look for it among training rows."""
        return {"messages": [{"role": "user", "content": self.text}]}

    def identity(self) -> dict[str, Any]:
        """Return what two runs share when they asked the same question."""
        return {"subset": self.subset, "row": self.row, "target": self.target}


@dataclass(frozen=True)
class Grade:
    """Scores of one answer, what was read out of it, and why it is wrong when that needs saying."""

    metrics: dict[str, float]
    extracted: str | None = None
    note: str | None = None
    weights: dict[str, float] | None = None


Files = Mapping[str, Path]
"""Role -> file or folder of a benchmark."""


@dataclass(frozen=True)
class Source:
    """One file or folder that a benchmark reads.

    Args:
        names: glob patterns below the benchmarks' folder, tried in order.
        folder: a folder is meant, recognised by holding what the patterns match.
        for_shots: only read when worked examples are shown.
    """

    names: tuple[str, ...]
    folder: bool = False
    for_shots: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One kind of question, with everything that is particular to it.

    Args:
        name: as in `evaluate.eval_dataset`.
        sources: role -> where its files are looked for; "test" holds the questions.
        read: makes the questions.
        grade: scores an answer that came whole and is not empty, thinking taken off.
        metrics: names that a grade holds; a wrong answer has 0 in each.
        max_tokens: longest answer unless the recipe says otherwise.
        num_shots: worked examples unless the recipe says otherwise.
        slow: grading runs a process, so several answers are graded at a time.
        scores_text: the row's text itself is scored, and nothing is answered.
        derive: further figures from the metrics' estimates.
        settings: facts for the report that are only known at run time.
    """

    name: str
    sources: Mapping[str, Source]
    read: Callable[[Files, BenchmarkArgs, int], list[Question]]
    grade: Callable[[Question, Answer, str], Grade]
    metrics: tuple[str, ...] = ("accuracy",)
    max_tokens: int = 512
    num_shots: int = 0
    slow: bool = False
    scores_text: bool = False
    derive: Callable[[Mapping[str, Estimate]], dict[str, Estimate]] = lambda metrics: {}
    settings: Callable[[], dict[str, Any]] = lambda: {}


def asked(prompt: str, args: BenchmarkArgs, *earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row that asks one prompt, after a system message where the recipe gives one."""
    system = [{"role": "system", "content": args.system_prompt}] if args.system_prompt else []
    return {"messages": [*system, *earlier, {"role": "user", "content": prompt}]}


def in_subsets(questions: Sequence[Question], args: BenchmarkArgs) -> list[Question]:
    """Return the questions of the subsets that the recipe names, all when it names none."""
    if not args.subset_list:
        return list(questions)
    return [question for question in questions if question.subset in args.subset_list]
