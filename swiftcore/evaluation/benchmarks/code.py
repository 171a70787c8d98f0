"""Code: HumanEval and MBPP, where an answer is right when its program passes the task's tests.

Programs run in `swiftcore.evaluation.sandbox`, one greedy answer a task, so the figure is pass@1.

Source: Chen et al., "Evaluating Large Language Models Trained on Code", 2021; Austin et al.,
"Program Synthesis with Large Language Models", 2021.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from swiftcore.evaluation.sandbox import open_sandbox
from swiftcore.recipe.benchmarks import BenchmarkArgs

_METRIC = "pass_at_1"
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
# MBPP's own division: these tasks are the examples of the paper's prompt, and those are its test.
_MBPP_SHOTS = (2, 3, 4)
_MBPP_TEST = range(11, 511)
_HUMANEVAL_PROMPT = (
    "Complete this Python function. Answer with the whole function in one block of code, and no "
    "examples of its use.\n\n```python\n{prompt}\n```"
)
_MBPP_PROMPT = "{text}\nAnswer with one block of Python code. It must pass these tests:\n\n{tests}"


def written_code(answer: str, name: str | None = None) -> str:
    """Return the code of an answer: the block that defines `name`, the first one, or all."""
    blocks = _FENCED.findall(answer)
    if not blocks:
        return answer
    defining = [block for block in blocks if name and _defines(block, name)]
    return (defining or blocks)[0]


def completed(prompt: str, answer: str, entry_point: str) -> str:
    """Return the program that an answer to HumanEval means.

    An answer that defines the function itself replaces it, after what the prompt has before it; any
    other is taken as the function's body.
    """
    code = written_code(answer, entry_point)
    if not _defines(code, entry_point):
        return prompt + code
    start = _definition(entry_point).search(prompt)
    return f"{prompt[: start.start()] if start else ''}\n{code}"


def run_tests(question: Question, answer: Answer, text: str) -> Grade:
    """Run the program of an answer with the task's tests."""
    facts = question.facts
    if "prompt" in facts:
        # White space at the start may be the indentation of the function's first line.
        whole = answer.text if text and answer.text.rstrip().endswith(text) else text
        program = completed(facts["prompt"], whole, facts["entry_point"])
    else:
        program = written_code(text)
    outcome = open_sandbox().run(f"{program}\n\n{facts['tests']}\n")
    return Grade({_METRIC: float(outcome.passed)}, program, outcome.why)


def _definition(name: str) -> re.Pattern[str]:
    return re.compile(rf"^(?:async )?def\s+{re.escape(name)}\s*\(", re.MULTILINE)


def _defines(code: str, name: str) -> bool:
    return _definition(name).search(code) is not None


def _read_humaneval(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    path, questions = files["test"], []
    for place, row in enumerate(read_rows(path), 1):
        names = ("prompt", "entry_point", "test", "canonical_solution")
        prompt, entry_point, test, solution = (
            str(field_of(row, name, path, place)) for name in names
        )
        facts = {
            "prompt": prompt,
            "entry_point": entry_point,
            "tests": f"{test}\ncheck({entry_point})",
        }
        row_asked = asked(_HUMANEVAL_PROMPT.format(prompt=prompt.rstrip()), args)
        questions.append(Question("openai_humaneval", row_asked, solution, prompt, facts))
    return in_subsets(questions, args)


def _read_mbpp(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    path = files["test"]
    rows = read_rows(path)
    numbers = [int(field_of(row, "task_id", path, place)) for place, row in enumerate(rows, 1)]
    worked = [row for row, n in zip(rows, numbers, strict=True) if n in _MBPP_SHOTS][:num_shots]
    # A file of the test part alone has no examples, and all of its rows are asked.
    whole = any(number in _MBPP_SHOTS for number in numbers)
    examples = [turn for row in worked for turn in _worked_turns(row)]
    return in_subsets(
        [
            _mbpp_question(row, path, place, examples, args)
            for place, row in enumerate(rows, 1)
            if not whole or numbers[place - 1] in _MBPP_TEST
        ],
        args,
    )


def _mbpp_question(
    row: dict[str, Any],
    path: Path,
    place: int,
    examples: Sequence[dict[str, str]],
    args: BenchmarkArgs,
) -> Question:
    text = str(row.get("text") or field_of(row, "prompt", path, place))
    tests = "\n".join(field_of(row, "test_list", path, place))
    setup = str(row.get("test_setup_code") or "\n".join(row.get("test_imports") or ()))
    row_asked = asked(_MBPP_PROMPT.format(text=text, tests=tests), args, *examples)
    facts = {"tests": f"{setup}\n{tests}"}
    return Question("full", row_asked, str(field_of(row, "code", path, place)), text, facts)


def _worked_turns(row: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    prompt = _MBPP_PROMPT.format(text=row["text"], tests="\n".join(row["test_list"]))
    code = str(row["code"]).replace("\r\n", "\n").replace("\t", "    ")
    return (
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": f"```python\n{code}\n```"},
    )


def _settings() -> dict[str, Any]:
    return {"sandbox": list(open_sandbox().measures)}


HUMANEVAL = Benchmark(
    "humaneval",
    {
        "test": Source(
            ("humaneval*.jsonl*", "HumanEval.jsonl*", "test*.jsonl*", "**/test-*.parquet")
        )
    },
    _read_humaneval,
    run_tests,
    metrics=(_METRIC,),
    max_tokens=1024,
    slow=True,
    settings=_settings,
)
MBPP = Benchmark(
    "mbpp",
    {"test": Source(("mbpp*.jsonl*", "full/test-*.parquet", "test*.jsonl*"))},
    _read_mbpp,
    run_tests,
    metrics=(_METRIC,),
    max_tokens=1024,
    num_shots=3,
    slow=True,
    settings=_settings,
)
