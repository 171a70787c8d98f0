"""Questions of the user's with a reference answer, scored by overlap: EvalScope's general_qa.

A row has `query` and `response`, perhaps `system`; or `question` and `answer`; or `messages` that
end with the answer.
"""

from pathlib import Path
from typing import Any

from swiftcore.errors import DataError
from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.places import read_rows
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
from swiftcore.scores.nlg import nlg_metrics
from swiftcore.scores.text import exact_match


def grade_overlap(question: Question, answer: Answer, text: str) -> Grade:
    """Score an answer by ROUGE and BLEU against the reference."""
    scores = nlg_metrics(text, question.target)
    return Grade({**scores, "exact_match": exact_match(text, question.target)})


def _read(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    path = files["test"]
    rows = enumerate(read_rows(path), 1)
    return in_subsets([_question(row, path, place, args) for place, row in rows], args)


def _question(row: dict[str, Any], path: Path, place: int, args: BenchmarkArgs) -> Question:
    subset = str(row.get("category") or path.name.partition(".")[0])
    messages = row.get("messages")
    if isinstance(messages, list) and len(messages) > 1:
        *earlier, last = messages
        text = str(earlier[-1].get("content", ""))
        return Question(subset, {**row, "messages": earlier}, str(last.get("content", "")), text)
    query, response = row.get("query", row.get("question")), row.get("response", row.get("answer"))
    if query is None or response is None:
        raise DataError(
            "A row lacks its question or its reference answer.",
            where=f"{path}:{place}",
            found=f"fields {', '.join(row)}",
            expected="query and response, question and answer, or messages",
        )
    earlier = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return Question(subset, asked(str(query), args, *earlier), str(response), str(query))


GENERAL_QA = Benchmark(
    "general_qa",
    {"test": Source(("test.jsonl*", "*.jsonl*", "*.csv"))},
    _read,
    grade_overlap,
    metrics=("rouge-1", "rouge-2", "rouge-l", "bleu-4", "exact_match"),
)
