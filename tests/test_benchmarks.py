"""Benchmarks from files to a report, with engines that answer by a rule."""

import gzip
import json
from pathlib import Path

import pytest
from rule_engine import RuleEngine

from swiftcore.artifacts import DigestCache, Store
from swiftcore.errors import DataError, RecipeError
from swiftcore.evaluation import Candidate, evaluate_candidates
from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.planning import benchmark_files, plan_benchmarks
from swiftcore.evaluation.benchmarks.running import graded
from swiftcore.recipe import EvaluateSection, build_recipe
from swiftcore.stages import build_road
from swiftcore.stages.evaluate import EVALUATE, benchmark_inputs

MMLU = [
    {"question": "2+2?", "subject": "algebra", "choices": ["3", "4", "5", "6"], "answer": 1},
    {"question": "3+3?", "subject": "algebra", "choices": ["6", "4", "5", "7"], "answer": 0},
    {"question": "H2O?", "subject": "chemistry", "choices": ["air", "fire", "water", "earth"],
     "answer": "C"},
]  # fmt: skip
GSM8K = [
    {"question": "Ann has 3 eggs and buys 4. How many?", "answer": "3+4=<<3+4=7>>7\n#### 7"},
    {"question": "Bob sells 1000 cups. How many?", "answer": "#### 1,000"},
]
ARC = [
    {
        "id": "a",
        "question": "Ice is?",
        "choices": {"text": ["hot", "cold"], "label": ["1", "2"]},
        "answerKey": "2",
    }
]
BBH = [{"input": "not True is", "target": "False"}, {"input": "Which?", "target": "(B)"}]


def write_lines(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "eval"
    write_lines(root / "mmlu_test.jsonl.gz", MMLU)
    write_lines(root / "mmlu_dev.jsonl", MMLU)
    write_lines(root / "gsm8k/test.jsonl", GSM8K)
    write_lines(root / "gsm8k/train.jsonl", GSM8K)
    write_lines(root / "arc_challenge_test.jsonl", ARC)
    (root / "bbh/cot-prompts").mkdir(parents=True)
    (root / "bbh/logic.json").write_text(json.dumps({"canary": "x", "examples": BBH}))
    text = "canary\n-----\nBe logical.\n\nQ: True is\nA: So the answer is True.\n\nQ: b\nA: B."
    (root / "bbh/cot-prompts/logic.txt").write_text(text)
    return root


def section(*names: str, **fields) -> EvaluateSection:
    shots = {name: {"few_shot_num": 0} for name in names if name in ("mmlu", "gsm8k", "bbh")}
    for name, args in fields.pop("eval_dataset_args", {}).items():
        shots[name] = {**shots.get(name, {}), **args}
    return EvaluateSection(eval_dataset=list(names), eval_dataset_args=shots, **fields)


def planned(root: Path, *names: str, **fields):
    wanted = section(*names, **fields)
    return plan_benchmarks(wanted, benchmark_files(wanted, root))


def evaluate(tmp_path, wanted, benchmarks, **rules):
    return evaluate_candidates(
        wanted,
        [Candidate(name, tmp_path, None, 1) for name in rules],
        [],
        tmp_path / "out",
        load_engine=lambda candidate: RuleEngine(rules[candidate.name]),
        benchmarks=benchmarks,
    )


def right(prompt: str) -> str:
    answers = {"2+2?": "ANSWER: B", "3+3?": "A", "H2O?": "ANSWER: (C)", "Ann": r"so \boxed{7}",
               "Bob": "#### 1000", "Ice": "B. cold", "not True": "So the answer is False.",
               "Which?": "the answer is (B)"}  # fmt: skip
    return next(answer for known, answer in answers.items() if known in prompt)


def test_right_answers_get_every_point_and_every_file_says_so(tmp_path, root):
    names = ("mmlu", "gsm8k", "arc", "bbh")
    report = evaluate(tmp_path, section(*names), planned(root, *names), m=right)
    figures = report.candidates["m"].metrics
    assert {name: (found.value, found.n) for name, found in figures.items()} == {
        "mmlu/accuracy": (1, 3),
        "gsm8k/accuracy": (1, 2),
        "arc/accuracy": (1, 1),
        "bbh/accuracy": (1, 2),
    }
    subjects = report.candidates["m"].subsets["mmlu"]
    assert {name: found["accuracy"].n for name, found in subjects.items()} == {
        "algebra": 2,
        "chemistry": 1,
    }
    written = json.loads((tmp_path / "out/report.json").read_text())
    assert written["benchmarks"]["mmlu"]["num_questions"] == 3
    lines = (tmp_path / "out/samples/gsm8k/m.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["extracted"] == "7"
    page = (tmp_path / "out/report.html").read_text()
    assert "mmlu, part by part" in page
    assert "chemistry: accuracy" in page
    assert json.loads((tmp_path / "out/metrics.json").read_text())["m"]["gsm8k/accuracy"] == 1


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "empty answer"),
        ("<think>it is B, ANSWER: B", "empty answer"),
        ("ANSWER: A", None),
        ("I can't answer that.", "no choice can be read"),
        (("ANSWER: B", "length"), "cut off at the longest answer"),
        (ValueError("boom"), "not answered"),
    ],
)
def test_a_bad_answer_is_wrong_and_says_why(tmp_path, root, bad, why):
    def rule(prompt):
        if "2+2?" not in prompt:
            return right(prompt)
        if isinstance(bad, Exception):
            raise bad
        return bad

    report = evaluate(tmp_path, section("mmlu"), planned(root, "mmlu"), m=rule)
    result = report.candidates["m"]
    assert result.metrics["mmlu/accuracy"].value == pytest.approx(2 / 3)
    first = report.samples["m"][0]
    assert (first.metrics["accuracy"], first.note) == (0, why)
    failed = isinstance(bad, Exception)
    assert result.coverage == pytest.approx(2 / 3 if failed else 1)
    assert result.truncated == isinstance(bad, tuple)
    assert why is None or why in (tmp_path / "out/report.html").read_text()


def test_worked_examples_come_before_the_question(root):
    (mmlu,) = planned(root, "mmlu", eval_dataset_args={"mmlu": {"few_shot_num": 1}})
    prompt = mmlu.questions[2].row["messages"][-1]["content"]
    assert prompt.index("ANSWER: C") < prompt.rindex("H2O?")
    (gsm8k,) = planned(root, "gsm8k", eval_dataset_args={"gsm8k": {"few_shot_num": 2}})
    prompt = gsm8k.questions[0].row["messages"][-1]["content"]
    assert r"\boxed{7}" in prompt
    assert "<<" not in prompt
    (bbh,) = planned(root, "bbh", eval_dataset_args={"bbh": {"few_shot_num": 1}})
    prompt = bbh.questions[0].row["messages"][-1]["content"]
    assert prompt.startswith("Be logical.\n\nQ: True is")
    assert "Q: b" not in prompt


def test_the_limit_takes_as_many_from_each_part(root):
    (mmlu,) = planned(root, "mmlu", eval_limit=2)
    assert [question.subset for question in mmlu.questions] == ["algebra", "chemistry"]
    assert mmlu.num_available == 3


def test_settings_reach_the_prompt_and_the_engine(tmp_path, root):
    wanted = section(
        "mmlu",
        eval_dataset_args={"mmlu": {"subset_list": ["chemistry"], "system_prompt": "Be brief."}},
        eval_generation_config={"max_tokens": 9, "temperature": 0.5, "stop": ["\n\n"]},
    )
    (mmlu,) = plan_benchmarks(wanted, benchmark_files(wanted, root))
    assert [question.text for question in mmlu.questions] == ["H2O?"]
    assert mmlu.questions[0].row["messages"][0] == {"role": "system", "content": "Be brief."}
    params = mmlu.params
    assert (params.max_new_tokens, params.temperature, params.stop) == (9, 0.5, ("\n\n",))


def test_a_missing_file_is_one_error_with_the_path(tmp_path, root):
    with pytest.raises(DataError) as caught:
        benchmark_files(section("math_500"), root)
    assert str(root / "math500.json") in caught.value.expected
    (root / "gsm8k/train.jsonl").unlink()
    with pytest.raises(DataError, match="train file") as caught:
        benchmark_files(EvaluateSection(eval_dataset=["gsm8k"]), root)
    assert "few_shot_num" in caught.value.do


@pytest.mark.parametrize(
    ("content", "match"),
    [("", "no rows"), ('{"question": "x"}\n', "lacks its"), ('{"a": 1}\n{"a"', "can't be read")],
)
def test_a_damaged_file_names_the_line(tmp_path, content, match):
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=match) as caught:
        planned(tmp_path, "gsm8k", eval_dataset_args={"gsm8k": {"local_path": str(path)}})
    assert str(path) in caught.value.where


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"eval_dataset": ["gsm9k"]}, "did you mean gsm8k"),
        ({"eval_dataset": ["gsm8k", "gsm8k"]}, "twice"),
        ({"eval_dataset_args": {"gsm8k": {}}}, "does nothing"),
        ({"eval_dataset": ["gsm8k"], "eval_dataset_args": {"gsm8k": {"shots": 1}}}, "few_shot_num"),
        ({"eval_dataset": ["gsm8k"], "eval_dataset_args": {"gsm8k": {"method": "loglikelihood"}}},
         "have choices"),
        ({"eval_dataset": ["gsm8k"], "eval_generation_config": {"max_new": 1}}, "no max_new"),
        ({"eval_generation_config": {"max_tokens": 1}}, "without eval_dataset"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(fields, match):
    with pytest.raises(RecipeError, match=match):
        build_recipe({"model": {"model": "m"}, "data": {"dataset": ["d"]}, "evaluate": fields})


def test_the_place_of_a_file_is_no_part_of_identity_and_its_content_is(tmp_path, root):
    def identity(path):
        evaluate = {"eval_dataset": ["arc"], "eval_dataset_args": {"arc": {"local_path": path}}}
        values = {"model": {"model": "m"}, "data": {"dataset": ["d"]}, "evaluate": evaluate}
        recipe = build_recipe(values).recipe
        inputs = benchmark_inputs(recipe.evaluate, tmp_path)
        digests = {role: source.ref(DigestCache(None)).digest for role, source in inputs.items()}
        return EVALUATE.config(recipe), digests

    here = write_lines(tmp_path / "here.jsonl", ARC)
    there = write_lines(tmp_path / "there.jsonl", ARC)
    assert identity(str(here)) == identity(str(there))
    write_lines(there, ARC * 2)
    assert identity(str(here))[0] == identity(str(there))[0]
    assert identity(str(here))[1] != identity(str(there))[1]


def test_a_section_without_benchmarks_is_what_it_was(tmp_path):
    values = {"model": {"model": "m"}, "data": {"dataset": ["d"]}, "evaluate": {"eval_limit": 3}}
    recipe = build_recipe(values).recipe
    assert EVALUATE.config(recipe) == {"evaluate": {"eval_limit": 3}}
    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]
    evaluate_candidates(
        recipe.evaluate,
        [Candidate("m", tmp_path, None, 1)],
        rows,
        tmp_path / "out",
        load_engine=lambda _: RuleEngine(lambda prompt: "a"),
    )
    written = json.loads((tmp_path / "out/report.json").read_text())
    assert "benchmarks" not in written
    assert not [name for name in written["settings"] if name.startswith("eval_d")]
    assert "subsets" not in written["candidates"]["m"]
    assert "benchmark" not in json.loads((tmp_path / "out/samples/m.jsonl").read_text())


def test_test_rows_in_training_are_found_among_benchmark_questions(tmp_path, root):
    seen = {
        "messages": [{"role": "user", "content": "H2O?"}, {"role": "assistant", "content": "C"}]
    }
    report = evaluate_candidates(
        section("mmlu"),
        [Candidate("m", tmp_path, None, 1)],
        [],
        tmp_path / "out",
        load_engine=lambda _: RuleEngine(right),
        train_rows=[seen],
        benchmarks=planned(root, "mmlu"),
    )
    assert report.contamination["exact"] == 1


def test_an_answer_with_likelihoods_chooses_the_likeliest(root):
    args = {"mmlu": {"method": "loglikelihood"}}
    (mmlu,) = planned(root, "mmlu", eval_dataset_args=args)
    question = mmlu.questions[0]
    assert question.row["messages"][-1]["content"].endswith("Answer:")
    assert question.choices == ("A", "B", "C", "D")
    best_b = Answer("", None, None, None, (-3.0, -1.0, -2.0, -4.0))
    assert graded(mmlu, question, best_b).metrics == {"accuracy": 1}
    best_c = Answer("", None, None, None, (-3.0, -1.0, -0.5, -4.0))
    assert graded(mmlu, question, best_c).metrics == {"accuracy": 0}


def test_the_evaluate_step_gets_the_files_as_inputs(tmp_path, root):
    recipe = {
        "name": "r",
        "model": {"scratch": {}},
        "data": {"dataset": [str(write_lines(tmp_path / "rows.jsonl", [{"text": "a"}]))]},
        "train": {"method": "pt"},
        "tuner": {"train_type": "full"},
        "evaluate": {
            "eval_dataset": ["arc", "bbh"],
            "eval_dataset_args": {"bbh": {"few_shot_num": 1}},
        },
        "runtime": {"eval_dataset_dir": str(root)},
    }
    step = build_road(build_recipe(recipe), Store(tmp_path / "store")).step("evaluate")
    files = {role: found.path.name for role, found in step.inputs.items() if "/" in role}
    assert files == {"arc/test": "arc_challenge_test.jsonl", "bbh/test": "bbh"}
    (root / "arc_challenge_test.jsonl").unlink()
    with pytest.raises(DataError, match="arc lacks its test file"):
        build_road(build_recipe(recipe), Store(tmp_path / "store"))
