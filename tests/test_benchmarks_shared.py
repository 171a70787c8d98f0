"""Real benchmarks, where they are at hand: right answers pass, others do not."""

import gzip
import json
from pathlib import Path

import pytest

from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.planning import benchmark_files, plan_benchmarks
from swiftcore.evaluation.benchmarks.running import graded
from swiftcore.generation import Completion
from swiftcore.recipe import EvaluateSection
from swiftcore.recipe.benchmarks import WITHOUT_SHOTS

SHARED = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
REFUSAL = "I'm sorry, but I can't help with that."
# benchmark: (questions, how a right answer is written)
FORMS = {
    "mmlu": (7164, "ANSWER: {}"),
    "arc": (299, "The answer is ({})."),
    "gsm8k": (800, "It is so.\n#### {}"),
    "math_500": (256, r"Therefore $\boxed{{{}}}$."),
    "bbh": (3896, "Let's see. So the answer is {}."),
}


def planned(name, **fields):
    args = {} if name in WITHOUT_SHOTS else {name: {"few_shot_num": 0}}
    section = EvaluateSection(eval_dataset=[name], eval_dataset_args=args, **fields)
    return plan_benchmarks(section, benchmark_files(section, SHARED))[0]


def points(benchmark, question, text):
    answer = Answer("", Completion([], text, "stop", 1, 1), None)
    return graded(benchmark, question, answer).metrics[benchmark.benchmark.metrics[0]]


@pytest.mark.parametrize("name", FORMS)
def test_right_answers_pass_and_refusals_do_not(name):
    benchmark = planned(name)
    count, form = FORMS[name]
    assert len(benchmark.questions) == count
    texts = [form.format(question.target) for question in benchmark.questions]
    wrong = [
        (question.subset, question.target)
        for question, text in zip(benchmark.questions, texts, strict=True)
        if not points(benchmark, question, text)
    ]
    assert wrong == []
    assert not any(points(benchmark, question, REFUSAL) for question in benchmark.questions[::50])


def test_solutions_of_other_people_are_graded_as_they_were():
    """GSM8K's example solutions carry a verdict; their last line states the answer."""
    path = SHARED / "math/gsm8k_example_model_solutions.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    by_question = {question.text: question for question in planned("gsm8k").questions}
    benchmark = planned("gsm8k")
    judged = [
        (row[model]["is_correct"], points(benchmark, by_question[text], row[model]["solution"]))
        for row in rows
        if (text := row["question"].strip()) in by_question
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    ]
    assert len(judged) > 1000
    assert sum(bool(mine) != theirs for theirs, mine in judged) <= 0.005 * len(judged)


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_the_published_solutions_pass_their_tests(name):
    benchmark = planned(name, eval_limit=5)
    for question in benchmark.questions:
        assert points(benchmark, question, f"```python\n{question.target}\n```")
        assert not points(benchmark, question, "```python\npass\n```")


def test_every_prompt_of_ifeval_can_be_checked():
    pytest.importorskip("py3langid")
    benchmark = planned("ifeval")
    assert len(benchmark.questions) == 304
    passed = sum(points(benchmark, question, REFUSAL) for question in benchmark.questions)
    assert passed < 40


def test_every_part_of_bfcl_that_can_be_asked_is_read():
    subsets = {question.subset for question in planned("bfcl_v4").questions}
    assert {"simple_python", "multiple", "parallel", "live_simple", "irrelevance"} <= subsets
