"""Mathematics: GSM8K and MATH-500, answered in words and graded by value.

Source: Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021; Hendrycks et al.,
"Measuring Mathematical Problem Solving With the MATH Dataset", 2021.
"""

import re
from collections.abc import Sequence
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
from swiftcore.scores.mathematics import answers_agree, final_answer, last_boxed

_INSTRUCTION = "Reason step by step, and put the final answer within \\boxed{}."
# GSM8K's solutions carry their calculations in double angle brackets, for a calculator.
_CALCULATION = re.compile(r"<<[^<>]*>>")


def grade_mathematics(question: Question, answer: Answer, text: str) -> Grade:
    """Grade the answer that a solution states by its value."""
    stated = final_answer(text)
    if stated is None:
        return Grade({"accuracy": 0.0}, None, "no answer is stated")
    return Grade({"accuracy": float(answers_agree(stated, question.target))}, stated)


def _read_gsm8k(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    worked = _solved(files["train"])[:num_shots] if num_shots else []
    examples = [
        f"Question: {problem}\n\nReasoning:\n{solution}\n\nThe answer is \\boxed{{{result}}}."
        for problem, solution, result in worked
    ]
    return in_subsets(
        [
            Question(
                "main", _asked_row(problem, examples, args), result, problem, {"solution": solution}
            )
            for problem, solution, result in _solved(files["test"])
        ],
        args,
    )


def _asked_row(problem: str, examples: Sequence[str], args: BenchmarkArgs) -> dict[str, Any]:
    head = ["Here are examples of how to solve similar problems."] if examples else []
    asks = f"Question: {problem}\n\n{_INSTRUCTION}" if examples else f"{problem}\n\n{_INSTRUCTION}"
    return asked("\n\n".join([*head, *examples, asks]), args)


def _solved(path: Path) -> list[tuple[str, str, str]]:
    """Return question, solution and result of each row."""
    found = []
    for place, row in enumerate(read_rows(path), 1):
        problem = str(field_of(row, "question", path, place)).strip()
        solution, mark, result = str(field_of(row, "answer", path, place)).rpartition("####")
        if not mark:
            raise DataError(
                "A solution states no result.",
                where=f"{path}:{place}",
                expected="a line `#### 42` at its end",
                do="check that this is GSM8K's own file",
            )
        found.append((problem, _CALCULATION.sub("", solution).strip(), result.strip()))
    return found


def _read_math(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    path, questions = files["test"], []
    for place, row in enumerate(read_rows(path), 1):
        problem = str(field_of(row, "problem", path, place)).strip()
        result = row.get("answer") or last_boxed(str(field_of(row, "solution", path, place)))
        if result is None:
            raise DataError(
                "A problem has no answer.",
                where=f"{path}:{place}",
                expected="a field answer, or \\boxed{} in the solution",
            )
        subset = str(row.get("subject") or row.get("type") or "all")
        level = str(row.get("level", "")).removeprefix("Level ")
        row_asked = _asked_row(problem, (), args)
        questions.append(Question(subset, row_asked, str(result), problem, {"level": level}))
    return in_subsets(questions, args)


GSM8K = Benchmark(
    "gsm8k",
    {
        "test": Source(("gsm8k_test.jsonl*", "test.jsonl*", "main/test-*.parquet")),
        "train": Source(
            ("gsm8k_train.jsonl*", "train.jsonl*", "main/train-*.parquet"), for_shots=True
        ),
    },
    _read_gsm8k,
    grade_mathematics,
    num_shots=4,
)
MATH_500 = Benchmark(
    "math_500",
    {"test": Source(("math500.json*", "math_500.json*", "test.json*"))},
    _read_math,
    grade_mathematics,
    max_tokens=2048,
)
