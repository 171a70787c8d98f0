"""EvalScope and lm-eval: their files in our report, and our scores on the same rows."""

import json
import os
import urllib.request
from pathlib import Path

import pytest

from swiftcore.artifacts import DigestCache
from swiftcore.backends import get_backend, open_environment
from swiftcore.backends.benchmarks import BenchmarkJob, ToolSample, ToolScores
from swiftcore.backends.evalscope.adapter import read_benchmark, run_evalscope
from swiftcore.backends.lm_eval.adapter import read_samples, run_lm_eval
from swiftcore.errors import (
    BackendFailed,
    BackendMissing,
    DataError,
    EnvironmentMissing,
    GateRefused,
    ModelMissing,
    RecipeError,
    UsageError,
)
from swiftcore.evaluation.tools import (
    ServedModel,
    evaluate_served,
    run_tool,
    scores_of,
    tool_digest,
)
from swiftcore.recipe import EvaluateSection, Runtime
from swiftcore.recipe.loading import read_section
from swiftcore.scores.text import tokenize
from swiftcore.serving.release import Release
from swiftcore.serving.temporary import temporarily_served
from swiftcore.stages.evaluate import benchmark_inputs
from tests.answering_stub import answering
from tests.graded_answers import ANSWERS, by_number, our_grades, section, write_gsm8k
from tests.roads import swift_here

MCQ = [("1+1=?", "2", "B"), ("2+2=?", "4", "D"), ("3+0=?", "3", "C"), ("0+1=?", "1", "A")]


@pytest.fixture
def gsm8k(tmp_path: Path) -> Path:
    return write_gsm8k(tmp_path / "gsm8k")


@pytest.fixture
def mcq(tmp_path: Path) -> Path:
    folder = tmp_path / "mcq"
    folder.mkdir()
    head = "id,question,A,B,C,D,answer\n"
    rows = [f"{i},{question},1,2,3,4,{right}\n" for i, (question, _, right) in enumerate(MCQ)]
    for split in ("dev", "val"):
        (folder / f"mine_{split}.csv").write_text(head + "".join(rows))
    return folder


def evalscope_files(folder: Path) -> Path:
    """Write what EvalScope leaves of two questions, of which one got no answer."""
    metric_errors = {"BLEU": "LookupError: \n***\n Resource not found."}
    review = {
        "index": 1,
        "target": ["8"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "4+4?"},
            {"role": "assistant", "content": "8"},
        ],
        "sample_score": {
            "score": {
                "value": {"Rouge-L-F": 1.0, "bleu-1": 0.0},
                "prediction": "8",
                "extracted_prediction": "8",
                "metadata": {"metric_errors": metric_errors},
            }
        },
    }
    choice = {"stop_reason": "max_tokens", "message": {"content": "8"}}
    output = {"choices": [choice], "usage": {"output_tokens": 64}}
    report = {"execution_summary": {"subsets": {"mine": {"requested": 2, "succeeded": 1}}}}
    for name, content in {
        "reports/m/general_qa.json": report,
        "reviews/m/general_qa_mine.jsonl": review,
        "predictions/m/general_qa_mine.jsonl": {"index": 1, "model_output": output},
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content) + "\n")
    return folder


def test_evalscope_files_become_samples_and_nothing_is_left_out(tmp_path: Path):
    samples, notes = read_benchmark(evalscope_files(tmp_path), "general_qa")
    lost, answered = samples
    assert (lost.row, lost.error, lost.metrics) == (
        0,
        "no answer from the endpoint",
        {"Rouge-L-F": 0},
    )
    assert (answered.prompt, answered.output, answered.target) == ("Be brief.\n\n4+4?", "8", "8")
    assert (answered.finish_reason, answered.completion_tokens) == ("length", 64)
    # A figure that EvalScope could not compute is not a 0.
    assert answered.metrics == {"Rouge-L-F": 1.0}
    assert notes == [
        "EvalScope could not compute BLEU of general_qa: LookupError: Resource not found."
    ]


@pytest.mark.parametrize("lost", ["reports", "reviews", "predictions"])
def test_evalscope_files_that_are_not_there_or_not_readable_are_said(tmp_path: Path, lost: str):
    (found,) = evalscope_files(tmp_path).glob(f"{lost}/*/*")
    found.write_text("{not json" if lost == "reviews" else "")
    if lost == "reports":
        found.unlink()
    with pytest.raises(BackendFailed, match="no readable result"):
        read_benchmark(tmp_path, "general_qa")


def test_filters_of_lm_eval_are_metrics_of_one_sample():
    line = {
        "benchmark": "gsm8k",
        "task": "gsm8k",
        "doc_id": 0,
        "target": "#### 2",
        "arguments": [[['[{"role": "user", "content": "1+1?"}]'], {}]],
        "resps": [["It is 2"]],
        "filtered_resps": ["[invalid]"],
        "metrics": ["exact_match", "bleu"],
        "exact_match": 0.0,
        "bleu": ["2", "It is 2"],
    }
    lines = [
        {**line, "filter": "strict-match"},
        {**line, "filter": "flexible-extract", "exact_match": 1.0},
    ]
    (sample,) = read_samples(lines)
    assert sample.metrics == {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": 1.0}
    assert (sample.prompt, sample.output) == ("1+1?", "It is 2")


def test_figures_of_a_tool_have_intervals_and_parts():
    samples = [
        ToolSample("mmlu", part, row, metrics={"accuracy": float(row != 1)})
        for part, rows in (("algebra", 3), ("physics", 1))
        for row in range(rows)
    ]
    scores = scores_of(ToolScores("1", samples, []), section(), 2.0)
    found = scores.metrics["mmlu/accuracy"]
    assert (found.value, found.n, found.interval) == (0.75, 4, "wilson")
    # Wilson's interval of 3 of 4, computed by hand from its formula.
    assert (round(found.low, 4), round(found.high, 4)) == (0.3006, 0.9544)
    assert scores.subsets["mmlu"]["physics"]["accuracy"].value == 1.0
    assert [sample.row for sample in scores.samples] == [0, 1, 2, 3]


def test_a_backend_takes_no_setting_that_does_nothing():
    for fields, said in (
        ({"eval_backend": "EvalScope"}, "does nothing without eval_dataset"),
        (
            {"eval_backend": "LmEval", "eval_dataset": ["gsm8k"], "eval_dataset_args": {"arc": {}}},
            "eval_dataset lacks arc",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            section(**fields)
    with pytest.raises(RecipeError, match="VLMEvalKit' is refused: its benchmarks ask about"):
        read_section(EvaluateSection, {"eval_backend": "VLMEvalKit"}, "evaluate")
    # A tool has benchmarks of its own.
    assert section(eval_backend="LmEval", eval_dataset=["babi"]).eval_dataset == ["babi"]


def test_places_are_no_part_of_what_is_asked():
    asked = {"eval_backend": "EvalScope", "eval_dataset": ["gsm8k"]}
    here = section(**asked, eval_dataset_args={"gsm8k": {"local_path": "/here"}})
    there = section(**asked, eval_dataset_args={"gsm8k": {"local_path": "/there"}})
    assert tool_digest(here, {"gsm8k": "a"}) == tool_digest(there, {"gsm8k": "a"})
    assert tool_digest(here, {"gsm8k": "a"}) != tool_digest(here, {"gsm8k": "b"})


def test_a_missing_tool_and_missing_files_are_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SWIFTCORE_BACKENDS", str(tmp_path / "none"))
    asked = section(eval_backend="LmEval", eval_dataset=["gsm8k"])
    served = ServedModel("http://127.0.0.1:9/v1", "m")
    with pytest.raises(BackendMissing, match="swift env install lm-eval"):
        run_tool(asked, served, tmp_path / "work", tmp_path / "raw", Runtime())
    nowhere = {"gsm8k": {"local_path": str(tmp_path / "nowhere")}}
    asked = asked.model_copy(update={"eval_dataset_args": nowhere})
    with pytest.raises(DataError, match="missing"):
        run_tool(asked, served, tmp_path / "work", tmp_path / "raw", Runtime())


def test_a_model_is_served_for_the_time_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    (tmp_path / "answer.txt").write_text("42")
    release = Release("f", "m", None, tmp_path, server="stub_server")
    with temporarily_served(release, tmp_path / "log.txt") as served:
        body = json.dumps({"messages": []}).encode()
        request = urllib.request.Request(f"{served.url}/chat/completions", body)
        found = json.loads(urllib.request.urlopen(request).read())
        assert found["choices"][0]["message"]["content"] == "42"
    with pytest.raises(ProcessLookupError):
        os.kill(found["pid"], 0)
    for behaviour, error in (("crash", GateRefused), ("refuse", ModelMissing)):
        (tmp_path / "behaviour.txt").write_text(behaviour)
        with pytest.raises(error), temporarily_served(release, tmp_path / f"{behaviour}.txt"):
            pass
    (tmp_path / "behaviour.txt").write_text("never ready")
    with (
        pytest.raises(EnvironmentMissing, match="did not become ready"),
        temporarily_served(release, tmp_path / "never.txt", timeout_seconds=2),
    ):
        pass


def test_a_stage_takes_only_files_that_its_fingerprint_covers(tmp_path: Path, gsm8k: Path):
    asked = {"eval_backend": "EvalScope", "eval_dataset": ["gsm8k"]}
    with pytest.raises(UsageError, match="would have to download gsm8k"):
        benchmark_inputs(section(**asked), tmp_path)
    settings = {"gsm8k": {"local_path": str(gsm8k)}}
    (files,) = benchmark_inputs(section(**asked, eval_dataset_args=settings), tmp_path).values()
    before = files.ref(DigestCache(None))
    (gsm8k / "test.jsonl").write_text((gsm8k / "train.jsonl").read_text().replace("Ann", "Bob"))
    assert files.ref(DigestCache(None)) != before


@pytest.mark.backend("evalscope")
def test_a_recipe_evaluates_every_candidate_with_evalscope(tiny_road: Path, gsm8k: Path):
    settings = f'{{"gsm8k": {{"local_path": "{gsm8k}", "few_shot_num": 0}}}}'
    done = swift_here(
        *("stage", "evaluate", tiny_road, "--out", tiny_road.parent / "out"),
        *("--set", "evaluate.eval_backend=EvalScope", "--set", "evaluate.eval_dataset=[gsm8k]"),
        *("--set", f"evaluate.eval_dataset_args={settings}", "--set", "evaluate.eval_limit=2"),
        *("--set", 'evaluate.eval_generation_config={"max_tokens": 8}'),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tiny_road.parent / "out/report.json").read_text())
    assert set(report["candidates"]) == {"base", "adapter", "merged", "quantized"}
    for name, found in report["candidates"].items():
        # Eight tokens of an untrained model are no solution, and each is there to be looked at.
        assert found["metrics"]["gsm8k/accuracy"]["value"] == 0
        assert found["metrics"]["gsm8k/accuracy"]["n"] == 2
        assert (found["coverage"], "rouge_l" in found["metrics"]) == (1.0, True)
        lines = (tiny_road.parent / f"out/samples/gsm8k/{name}.jsonl").read_text().splitlines()
        answered = [json.loads(line) for line in lines]
        assert [line["finish_reason"] for line in answered] == ["length", "length"]
        assert (tiny_road.parent / f"out/raw/{name}/gsm8k/reports").is_dir()
    assert report["benchmarks"]["gsm8k"]["backend"] == "EvalScope"


@pytest.mark.backend("evalscope")
def test_evalscope_and_we_score_the_same_answers_alike(tmp_path: Path, gsm8k: Path, mcq: Path):
    asked = section(
        eval_backend="EvalScope",
        eval_dataset=["gsm8k", "general_mcq"],
        eval_dataset_args={
            "gsm8k": {"local_path": str(gsm8k), "few_shot_num": 0},
            "general_mcq": {"local_path": str(mcq), "subset_list": ["mine"]},
        },
    )

    def rule(question: str) -> str:
        if "Ann has" in question:
            return by_number(question)
        return "答案：B" if "1+1" in question or "2+2" in question else "答案：C"

    # Every tenth request fails, and is sent again.
    with answering(rule, fail=lambda number: number % 10 == 0) as url:
        served = ServedModel(url, "stub")
        scores, notes = run_tool(asked, served, tmp_path / "work", tmp_path / "raw", Runtime())
    assert notes == []
    mathematics = [sample for sample in scores.samples if sample.benchmark == "gsm8k"]
    assert [sample.output for sample in mathematics] == ANSWERS
    theirs = [sample.metrics["accuracy"] for sample in mathematics]
    assert theirs == our_grades("gsm8k", gsm8k, ANSWERS)["accuracy"]
    assert sum(theirs) == 4
    assert scores.metrics["general_mcq/accuracy"].value == 0.5
    assert list((tmp_path / "raw").rglob("reviews/*/gsm8k_main.jsonl"))
    assert "EMPTY" not in (tmp_path / "work/job.json").read_text()


@pytest.mark.backend("evalscope")
def test_evalscope_and_we_score_the_rows_of_the_demo_alike(tmp_path: Path):
    pairs = demo_pairs()
    targets = [target for _, target in pairs]
    changes = (str, first_half, lambda target: f"{target} I think", lambda _: "Ask me later")
    answers = [changes[row % 4](target) for row, target in enumerate(targets)]
    answers[-1] = ""
    rows = [{"query": asked, "response": target} for asked, target in pairs]
    (tmp_path / "qa").mkdir()
    (tmp_path / "qa/mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = section(
        eval_backend="EvalScope",
        eval_dataset=["general_qa"],
        eval_dataset_args={
            "general_qa": {"local_path": str(tmp_path / "qa"), "subset_list": ["mine"]}
        },
    )
    by_question = dict(zip((asked for asked, _ in pairs), answers, strict=True))
    with answering(by_question.__getitem__) as url:
        served = ServedModel(url, "stub")
        scores, _ = run_tool(asked, served, tmp_path / "work", tmp_path / "raw", Runtime())
    assert [sample.output for sample in scores.samples] == answers
    ours = our_grades("general_qa", tmp_path / "qa", answers)
    for name in ("1", "2", "L"):
        theirs = [sample.metrics[f"Rouge-{name}-F"] for sample in scores.samples]
        assert theirs == pytest.approx(ours[f"rouge-{name.lower()}"], abs=1e-6)
        assert 0.2 < sum(theirs) / len(theirs) < 0.8


def first_half(text: str) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


def demo_pairs() -> list[tuple[str, str]]:
    """Return questions of the demo's held-out rows, each once, with the first answer.

    EvalScope counts a word once that stands twice in a text, and cuts words at white space alone,
    so answers are left out that say a word twice or have a mark within one.
    """
    found: dict[str, str] = {}
    with (Path(__file__).parents[1] / "data/demo/test.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            question, answer = (m["content"] for m in json.loads(line)["messages"][:2])
            words = tokenize(f"{answer} I think")
            if len(set(words)) == len(words) == len(answer.split()) + 2:
                found.setdefault(question, answer)
    return list(found.items())[:24]


@pytest.mark.backend("evalscope")
def test_an_endpoint_that_answers_nothing_is_one_error(tmp_path: Path, mcq: Path):
    job = BenchmarkJob(
        model="stub",
        api_url="http://127.0.0.1:9/v1",
        datasets={"general_mcq": {"local_path": str(mcq), "subset_list": ["mine"]}},
        out_dir=tmp_path / "raw",
        retries=0,
        timeout_seconds=2,
    )
    with pytest.raises(BackendFailed):
        run_evalscope(job, tmp_path / "work", Runtime())


@pytest.mark.backend("lm-eval")
def test_lm_eval_and_we_score_the_same_answers_alike(tmp_path: Path, gsm8k: Path):
    settings = {"gsm8k": {"local_path": str(gsm8k), "few_shot_num": 2}}
    asked = section(
        eval_backend="LmEval", eval_dataset=["gsm8k"], eval_dataset_args=settings, eval_limit=8
    )
    with answering(by_number, fail=lambda number: number % 10 == 0) as url:
        served = ServedModel(url, "stub")
        report = evaluate_served(asked, served, "stub", tmp_path / "work", Runtime())
    assert [sample.output for sample in report.samples["stub"]] == ANSWERS
    theirs = [s.metrics["exact_match,flexible-extract"] for s in report.samples["stub"]]
    report.write(tmp_path / "report")
    written = json.loads((tmp_path / "report/report.json").read_text())
    found = written["candidates"]["stub"]["metrics"]["gsm8k/exact_match,flexible-extract"]
    assert (found["value"], found["n"]) == (3 / 8, 8)
    assert "lm-eval keeps neither" in written["benchmarks"]["gsm8k"]["notes"][0]
    # It compares text: "12.0" is not "12".
    assert [
        a == b for a, b in zip(theirs, our_grades("gsm8k", gsm8k, ANSWERS)["accuracy"], strict=True)
    ].count(False) == 1
    assert sum(theirs) == 3
    assert (tmp_path / "work/raw/stub/results.json").is_file()


@pytest.mark.backend("lm-eval")
def test_swift_eval_lets_a_tool_ask_an_endpoint(tmp_path: Path, gsm8k: Path):
    settings = json.dumps({"gsm8k": {"local_path": str(gsm8k), "few_shot_num": 0}})
    with answering(by_number) as url:
        done = swift_here(
            *("eval", "--eval_url", url, "--eval_backend", "LmEval", "--eval_dataset", "gsm8k"),
            *("--eval_dataset_args", settings, "--eval_output_dir", tmp_path / "out", "--json"),
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["metrics"]["gsm8k/exact_match,flexible-extract"]["value"] == 3 / 8
    report = json.loads((Path(told["path"]) / "report.json").read_text())
    assert (Path(report["settings"]["raw"]) / "stub/results.json").is_file()


def test_swift_eval_with_a_tool_says_what_it_can_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SWIFTCORE_BACKENDS", str(tmp_path / "none"))
    asked = ("eval", "--eval_backend", "EvalScope", "--eval_dataset", "gsm8k")
    out = ("--eval_output_dir", tmp_path / "out")
    with answering(by_number) as url:
        missing = swift_here(*asked, *out, "--eval_url", url)
    assert (missing.returncode, "swift env install evalscope" in missing.stderr) == (5, True)
    templated = swift_here(*asked, *out, "--model", tmp_path, "--template", "chatml")
    assert (templated.returncode, "do nothing" in templated.stderr) == (2, True)


@pytest.mark.backend("lm-eval")
def test_lm_eval_refuses_a_task_that_is_not_there(tmp_path: Path):
    job = BenchmarkJob(
        model="stub",
        api_url="http://127.0.0.1:9/v1",
        datasets={"gsm9k": {}},
        out_dir=tmp_path / "o",
    )
    with pytest.raises(UsageError, match="no such task"):
        run_lm_eval(job, tmp_path / "work", Runtime())


@pytest.mark.backend("evalscope")
@pytest.mark.backend("lm-eval")
def test_installed_backends_are_as_they_were_installed():
    for name in ("evalscope", "lm-eval"):
        assert open_environment(get_backend(name)).check() == []
