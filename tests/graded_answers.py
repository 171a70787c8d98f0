"""Questions with answers to be graded by other tools and by us: what both read, and our grades."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.planning import benchmark_files, plan_benchmarks
from swiftcore.evaluation.benchmarks.running import graded
from swiftcore.generation import Completion
from swiftcore.recipe import EvaluateSection

GSM8K = [
    {"question": f"Ann has {n} eggs and buys {n}. How many?", "answer": f"#### {2 * n}"}
    for n in range(1, 9)
]
# Right in several forms, wrong, refused, empty and malformed.
ANSWERS = [
    "1+1 = 2, so \\boxed{2}",
    "The answer is 4.\n#### 4",
    "The answer is \\boxed{7}",
    "I can't answer that.",
    "",
    "\\boxed{12.0}",
    "\\boxed{",
    "It is 16 eggs. \\boxed{16}",
]
README = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: train.jsonl
  - split: test
    path: test.jsonl
---
"""


def section(**fields) -> EvaluateSection:
    """Return an evaluate section that bootstraps quickly."""
    return EvaluateSection(num_bootstrap=100, **fields)


def by_number(question: str) -> str:
    """Answer the question about n eggs with the n-th answer."""
    n = int(question.split("Ann has ")[-1].split()[0])
    return ANSWERS[n - 1]


def write_gsm8k(folder: Path) -> Path:
    """Write the questions as files of the hub's GSM8K."""
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in GSM8K))
    (folder / "README.md").write_text(README)
    return folder


def our_grades(benchmark: str, files: Path, answers: Sequence[str]) -> dict[str, list[float]]:
    """Return our own grades of answers to a benchmark's questions, by metric."""
    args = {benchmark: {"local_path": str(files)}}
    asked = section(eval_dataset=[benchmark], eval_dataset_args=args)
    (planned,) = plan_benchmarks(asked, benchmark_files(asked, files.parent))
    found = defaultdict(list)
    for question, text in zip(planned.questions, answers, strict=True):
        completion = Completion([], text, "stop", prompt_tokens=1, completion_tokens=1)
        for name, value in graded(planned, question, Answer("", completion, None)).metrics.items():
            found[name].append(value)
    return dict(found)
