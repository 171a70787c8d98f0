"""BIG-Bench Hard: tasks with a worked chain of thought before the question, graded exactly.

Source: Suzgun et al., "Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them",
2022.
"""

import re
from pathlib import Path

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
)
from swiftcore.recipe.benchmarks import BenchmarkArgs

_PROMPTS = "cot-prompts"
_STATED = re.compile(r"answer\s*(?:is|:)\s*:?\s*(.+?)\s*(?:\.(?:\s|$)|$)", re.IGNORECASE | re.M)
_OPTION = re.compile(r"\(([A-Z])\)")
_LETTER = re.compile(r"[\s*(\[]*([A-Z])[\s*)\].:]*")


def stated_answer(text: str) -> str | None:
    """Return what follows the last "the answer is"; without one, the last line when it is short."""
    if found := _STATED.findall(text):
        return found[-1].strip(" *`\"'$")
    last = text.strip().rpartition("\n")[2].strip().rstrip(".")
    return last if last and len(last.split()) <= 4 else None


def grade_exactly(question: Question, answer: Answer, text: str) -> Grade:
    """Grade the stated answer by its letters, or as an option where options were given."""
    stated, target = stated_answer(text), question.target.strip()
    if stated is None:
        return Grade({"accuracy": 0.0}, None, "no answer is stated")
    if _OPTION.fullmatch(target):
        option = _OPTION.search(stated) or _LETTER.fullmatch(stated)
        return Grade({"accuracy": float(bool(option) and f"({option.group(1)})" == target)}, stated)
    return Grade({"accuracy": float(_spelled(stated) == _spelled(target))}, stated)


def _spelled(text: str) -> str:
    return " ".join(text.casefold().rstrip(".").split())


def _read(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    folder = files["test"]
    tasks = sorted(folder.glob("*.json*"))
    names = {_task(path): path for path in tasks}
    lacking = [name for name in args.subset_list if name not in names]
    if lacking:
        raise DataError(
            "A task of BIG-Bench Hard is not there.",
            where=folder,
            found=", ".join(names),
            expected=", ".join(lacking),
            do="name other tasks in evaluate.eval_dataset_args.bbh.subset_list",
        )
    chosen = args.subset_list or tuple(names)
    return [found for name in chosen for found in _task_questions(names[name], num_shots, args)]


def _task(path: Path) -> str:
    return path.name.partition(".")[0]


def _task_questions(path: Path, num_shots: int, args: BenchmarkArgs) -> list[Question]:
    name = _task(path)
    head = _worked(path.parent / _PROMPTS / f"{name}.txt", num_shots) if num_shots else ""
    questions = []
    for place, row in enumerate(read_rows(path), 1):
        text = str(field_of(row, "input", path, place))
        ask = f'Q: {text}\nA: Let\'s think step by step, and end with "So the answer is X."'
        row_asked = asked(f"{head}\n\n{ask}" if head else ask, args)
        target = str(field_of(row, "target", path, place))
        questions.append(Question(name, row_asked, target, text))
    return questions


def _worked(path: Path, num_shots: int) -> str:
    """Return a task's description and its first worked examples.

    Raises:
        DataError: the file is not there, or holds fewer.
    """
    if not path.is_file():
        raise DataError(
            "A task of BIG-Bench Hard lacks its worked examples.",
            where=path,
            found="no such file",
            expected=f"{_PROMPTS}/{path.name}",
            do="put it there, or set evaluate.eval_dataset_args.bbh.few_shot_num to 0",
        )
    # A canary line and a line of dashes stand before the text.
    text = path.read_text(encoding="utf-8").partition("-----\n")[2].strip()
    head, *examples = re.split(r"\n\s*\n(?=Q:)", text)
    if len(examples) < num_shots:
        raise DataError(
            "A task of BIG-Bench Hard has too few worked examples.",
            where=path,
            found=len(examples),
            expected=num_shots,
            do="lower evaluate.eval_dataset_args.bbh.few_shot_num",
        )
    return "\n\n".join([head, *examples[:num_shots]])


BBH = Benchmark(
    "bbh",
    {"test": Source(("bbh/boolean_expressions.json*", "bbh/*.json*", "*.json*"), folder=True)},
    _read,
    grade_exactly,
    num_shots=3,
    max_tokens=1024,
)
