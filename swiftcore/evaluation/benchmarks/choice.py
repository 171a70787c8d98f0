"""Multiple choice: MMLU, ARC, and files of the user's in the same form.

By generation the model writes a letter, which is read out of its answer. By log-likelihood nothing
is written: the letter that the model finds likeliest after "Answer:" is its choice, the form in
which MMLU was published (Hendrycks et al., "Measuring Massive Multitask Language Understanding",
2021).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftcore.errors import DataError
from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.places import field_of, read_rows
from swiftcore.evaluation.benchmarks.question import (
    Benchmark,
    Files,
    Grade,
    Question,
    Source,
    asked,
    in_subsets,
)
from swiftcore.recipe.benchmarks import BenchmarkArgs

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_INSTRUCTION = "Answer with the letter of the right choice alone, in the form: ANSWER: X"
_MARKED = re.compile(
    r"(?:answer\s*(?:is|:)|\\boxed\{)\s*(?:\\text\{)?[\s*_(\[]*([A-Za-z])(?![A-Za-z'])",
    re.IGNORECASE,
)
_ALONE = re.compile(r"\A[\s*_(\[]*([A-Za-z])[\s*_)\].:,]*(?:\n|\Z)")
_LEADING = re.compile(r"\A[\s*_]*(?:\(([A-Za-z])\)|([A-Z])[.:)])[\s*_]")


@dataclass(frozen=True)
class Item:
    """One question with its choices; `right` is the place of the right one."""

    subset: str
    question: str
    choices: tuple[str, ...]
    right: int

    def written(self) -> str:
        """Return question and choices as text, up to where the answer is wanted."""
        lines = [self.question.strip()]
        lines += [f"{letter}. {text}" for letter, text in zip(LETTERS, self.choices, strict=False)]
        return "\n".join([*lines, "Answer:"])


def chosen_letter(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter that an answer chooses; None when it chooses none, or can't be read.

    Read in this order: the last "answer is X" or "ANSWER: X" or boxed letter, a letter that stands
    alone in the first line, a letter that starts the answer as a list entry ("B. Paris"), the exact
    text of one choice. A letter within a sentence ("A dog") is no choice.
    """
    known = LETTERS[: len(choices)]
    marked = [found.upper() for found in _MARKED.findall(answer)]
    if marked:
        return marked[-1] if marked[-1] in known else None
    for pattern in (_ALONE, _LEADING):
        if match := pattern.match(answer):
            letter = next(group for group in match.groups() if group).upper()
            return letter if letter in known else None
    said = answer.strip().rstrip(".").casefold()
    same = [i for i, text in enumerate(choices) if text.strip().rstrip(".").casefold() == said]
    return LETTERS[same[0]] if len(same) == 1 else None


def grade_choice(question: Question, answer: Answer, text: str) -> Grade:
    """Grade a written letter, or the likeliest one."""
    choices, right = question.facts["choices"], question.facts["right"]
    if answer.log_likelihoods is not None:
        best = max(range(len(choices)), key=lambda i: (answer.log_likelihoods or ())[i])
        return Grade({"accuracy": float(best == right)}, LETTERS[best])
    letter = chosen_letter(text, choices)
    note = "no choice can be read" if letter is None else None
    return Grade({"accuracy": float(letter == LETTERS[right])}, letter, note)


def _questions(
    items: Iterable[Item], shots: Mapping[str, Sequence[Item]], args: BenchmarkArgs, topic: bool
) -> list[Question]:
    return in_subsets([_question(i, shots.get(i.subset, ()), args, topic) for i in items], args)


def _question(item: Item, shots: Sequence[Item], args: BenchmarkArgs, topic: bool) -> Question:
    about = f" about {item.subset.replace('_', ' ')}" if topic else ""
    head = [f"The following are multiple choice questions{about}."]
    if args.method == "generation":
        head.append(_INSTRUCTION)
        examples = [f"{s.written()[: -len('Answer:')]}ANSWER: {LETTERS[s.right]}" for s in shots]
        asks = item.written()[: -len("\nAnswer:")]
    else:
        examples = [f"{shot.written()} {LETTERS[shot.right]}" for shot in shots]
        asks = item.written()
    return Question(
        subset=item.subset,
        row=asked("\n\n".join(["\n".join(head), *examples, asks]), args),
        target=LETTERS[item.right],
        text=item.question,
        facts={"choices": item.choices, "right": item.right},
        choices=tuple(LETTERS[: len(item.choices)]),
    )


def _read_mmlu(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    shots: dict[str, list[Item]] = {}
    for item in _mmlu_items(files["dev"]) if num_shots else ():
        shots.setdefault(item.subset, []).append(item)
    for subject, found in shots.items():
        shots[subject] = found[:num_shots]
    items = [i for i in _mmlu_items(files["test"]) if i.subset in (args.subset_list or (i.subset,))]
    for item in items:
        if len(shots.get(item.subset, ())) < num_shots:
            raise DataError(
                f"MMLU has too few worked examples for {item.subset}.",
                where=files["dev"],
                found=len(shots.get(item.subset, ())),
                expected=num_shots,
                do="lower evaluate.eval_dataset_args.mmlu.few_shot_num",
            )
    return _questions(items, shots, args, topic=True)


def _mmlu_items(path: Path) -> list[Item]:
    return [
        Item(
            str(row.get("subject") or "all"),
            str(field_of(row, "question", path, place)),
            tuple(map(str, field_of(row, "choices", path, place))),
            _place(field_of(row, "answer", path, place), path, place),
        )
        for place, row in enumerate(read_rows(path), 1)
    ]


def _place(written: Any, path: Path, place: int) -> int:
    """Return the place of the right choice, written as a number from 0 or as a letter."""
    text = str(written).strip()
    if text.isdecimal():
        return int(text)
    if len(text) == 1 and text.upper() in LETTERS:
        return LETTERS.index(text.upper())
    raise DataError(
        "A question does not say which choice is right.",
        where=f"{path}:{place}",
        found=text,
        expected="a letter, or a number from 0",
    )


def _read_arc(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    shots = _arc_items(files["dev"])[:num_shots] if num_shots else []
    items = _arc_items(files["test"])
    return _questions(items, {"ARC-Challenge": shots, "ARC-Easy": shots}, args, topic=False)


def _arc_items(path: Path) -> list[Item]:
    items = []
    subset = "ARC-Easy" if "easy" in path.as_posix().lower() else "ARC-Challenge"
    for place, row in enumerate(read_rows(path), 1):
        choices = field_of(row, "choices", path, place)
        labels, key = list(choices["label"]), str(field_of(row, "answerKey", path, place))
        if key not in labels:
            raise DataError(
                "A question's key names none of its choices.",
                where=f"{path}:{place}",
                found=key,
                expected=" | ".join(labels),
            )
        question = str(field_of(row, "question", path, place))
        items.append(Item(subset, question, tuple(choices["text"]), labels.index(key)))
    return items


def _read_general(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    """Read EvalScope's own form: question, A, B, C ..., answer."""
    shots = _general_items(files["dev"])[:num_shots] if num_shots else []
    items = _general_items(files["test"])
    return _questions(items, {item.subset: shots for item in items}, args, topic=False)


def _general_items(path: Path) -> list[Item]:
    items = []
    for place, row in enumerate(read_rows(path), 1):
        choices = [str(row[letter]) for letter in LETTERS if row.get(letter) not in (None, "")]
        right = _place(field_of(row, "answer", path, place), path, place)
        question = str(field_of(row, "question", path, place))
        subset = path.name.partition(".")[0].removesuffix("_val")
        items.append(Item(subset, question, tuple(choices), right))
    return items


MMLU = Benchmark(
    "mmlu",
    {
        "test": Source(("mmlu_test.jsonl*", "test.jsonl*", "all/test-*.parquet", "test*.parquet")),
        "dev": Source(
            ("mmlu_dev.jsonl*", "dev.jsonl*", "all/dev-*.parquet", "dev*.parquet"), for_shots=True
        ),
    },
    _read_mmlu,
    grade_choice,
    num_shots=5,
)
ARC = Benchmark(
    "arc",
    {
        "test": Source(
            (
                "arc_challenge_test.jsonl*",
                "arc_challenge_validation.jsonl*",
                "ARC-Challenge/test-*.parquet",
                "test.jsonl*",
            )
        ),
        "dev": Source(
            ("arc_challenge_train.jsonl*", "ARC-Challenge/train-*.parquet", "train.jsonl*"),
            for_shots=True,
        ),
    },
    _read_arc,
    grade_choice,
)
GENERAL_MCQ = Benchmark(
    "general_mcq",
    {
        "test": Source(("*_val.jsonl", "*_val.csv", "test.jsonl*")),
        "dev": Source(("*_dev.jsonl", "*_dev.csv", "dev.jsonl*"), for_shots=True),
    },
    _read_general,
    grade_choice,
)
