"""OpenCompass: its files in our report, our scores on the same rows, and what it can not do."""

import json
from pathlib import Path

import pytest

from swiftcore.backends.benchmarks import BenchmarkJob
from swiftcore.backends.opencompass.adapter import read_benchmark, run_opencompass
from swiftcore.errors import BackendFailed, UsageError
from swiftcore.evaluation.tools import ServedModel, evaluate_served
from swiftcore.recipe import Runtime
from tests.answering_stub import answering
from tests.graded_answers import ANSWERS, by_number, our_grades, section, write_gsm8k


def files_of_a_run(folder: Path, **changes) -> Path:
    """Write what a run leaves of two questions, of which one got no answer."""
    asked = [{"role": "HUMAN", "prompt": "1+1?"}]
    content = {
        "predictions/model/part.json": {
            "0": {"origin_prompt": asked, "prediction": "It is 2", "gold": "2"},
            "1": {"origin_prompt": "2+2?", "prediction": "", "gold": "4"},
        },
        "results/model/part.json": {
            "accuracy": 50.0,
            "details": [
                {"pred": ["2"], "answer": ["2"], "correct": [True]},
                {"pred": ["NULL"], "answer": ["4"], "correct": [False]},
            ],
        },
        "told/part.json": [
            {"finish_reason": "length", "completion_tokens": 3},
            {"error": "APITimeoutError: Request timed out."},
        ],
    }
    for name, value in (content | changes).items():
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(value))
    return folder


def test_opencompass_files_become_samples_and_nothing_is_left_out(tmp_path: Path):
    answered, lost = read_benchmark(files_of_a_run(tmp_path), "math")
    assert (answered.prompt, answered.output, answered.target) == ("1+1?", "It is 2", "2")
    assert (answered.subset, answered.row, answered.metrics) == ("part", 0, {"accuracy": 1.0})
    assert (answered.finish_reason, answered.completion_tokens) == ("length", 3)
    assert (lost.error, lost.metrics) == (
        "APITimeoutError: Request timed out.",
        {"accuracy": 0.0},
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"results/model/part.json": {"rouge1": 40.0}}, "no single answer"),
        ({"results/model/part.json": {"details": [{"pred": ["2"]}] * 2}}, "no grade of answer 0"),
        ({"told/part.json": [{"error": "gone"}]}, "2 answers, 2 grades, 1 requests"),
        ({"told/part.json": [{"error": "gone"}] * 2}, "was answered: gone"),
    ],
)
def test_opencompass_files_that_say_too_little_are_no_result(tmp_path: Path, changes, said):
    with pytest.raises(BackendFailed, match=said):
        read_benchmark(files_of_a_run(tmp_path, **changes), "math")


def test_opencompass_without_files_is_no_result(tmp_path: Path):
    with pytest.raises(BackendFailed, match="no file in told"):
        read_benchmark(tmp_path, "math")


@pytest.mark.backend("opencompass")
def test_opencompass_and_we_score_the_same_answers_alike(tmp_path: Path):
    gsm8k = write_gsm8k(tmp_path / "gsm8k")
    questions = [{"question": f"{n}+{n}?", "answer": str(2 * n)} for n in range(1, 5)]
    qa = tmp_path / "qa.jsonl"
    qa.write_text("".join(json.dumps(row) + "\n" for row in questions))
    asked = section(
        eval_backend="OpenCompass",
        eval_dataset=["gsm8k", "general_qa"],
        eval_dataset_args={
            "gsm8k": {"local_path": str(gsm8k)},
            "general_qa": {"local_path": str(qa)},
        },
    )

    def rule(question: str) -> str:
        return by_number(question) if "Ann has" in question else {"1+1?": "2"}.get(question, "7")

    # Every tenth request fails, and is sent again.
    with answering(rule, fail=lambda number: number % 10 == 0) as url:
        served = ServedModel(url, "stub")
        report = evaluate_served(asked, served, "stub", tmp_path / "work", Runtime())
    samples = report.samples["stub"]
    mathematics = [sample for sample in samples if sample.benchmark == "gsm8k"]
    assert [sample.output for sample in mathematics] == ANSWERS
    theirs = [sample.metrics["accuracy"] for sample in mathematics]
    assert theirs == our_grades("gsm8k", gsm8k, ANSWERS)["accuracy"]
    assert sum(theirs) == 4
    own = [sample.metrics["accuracy"] for sample in samples if sample.benchmark == "general_qa"]
    answers = ["2", "7", "7", "7"]
    assert own == our_grades("general_qa", qa, answers)["exact_match"] == [1, 0, 0, 0]
    report.write(tmp_path / "report")
    written = json.loads((tmp_path / "report/report.json").read_text())
    assert written["candidates"]["stub"]["metrics"]["gsm8k/accuracy"]["value"] == 0.5
    assert written["benchmarks"]["gsm8k"]["backend"] == "OpenCompass"
    assert (tmp_path / "work/raw/stub/gsm8k/results/model/gsm8k.json").is_file()
    order = next((tmp_path / "work").rglob("job.json"))
    assert "EMPTY" not in order.read_text()


@pytest.mark.backend("opencompass")
@pytest.mark.parametrize(
    ("benchmark", "settings", "said"),
    [
        ("gsm9k", {}, "no such configuration"),
        ("gsm8k", {"few_shot_num": 2}, "keeps this setting in its configurations"),
        ("gsm8k", {"subset_list": ["algebra"]}, "no such part"),
        ("hellaswag", {"config": "hellaswag_ppl"}, "can only answer in words"),
        ("general_qa", {}, "asks the questions of a file"),
    ],
)
def test_opencompass_refuses_what_an_endpoint_can_not_do(tmp_path, benchmark, settings, said):
    job = BenchmarkJob(
        model="stub",
        api_url="http://127.0.0.1:9/v1",
        datasets={benchmark: settings},
        out_dir=tmp_path / "raw",
    )
    with pytest.raises(UsageError, match=said):
        run_opencompass(job, tmp_path / "work", Runtime())
