"""Native evaluation with a small engine: steps, failures that count, and the files."""

import json
import re

import pytest
from rule_engine import RuleEngine

from swiftcore.errors import Cancelled, DataError
from swiftcore.evaluation import Candidate, evaluate_candidates, samples_of_rows
from swiftcore.recipe import EvaluateSection

CALL = '{"name": "f", "arguments": {"a": 1}}'
TOOLS = json.dumps([{"type": "function", "function": {"name": "f"}}])


def agent_row(question):
    return {
        "tools": TOOLS,
        "messages": [
            {"role": "user", "content": question},
            {"role": "tool_call", "content": CALL},
            {"role": "tool_response", "content": "7"},
            {"role": "assistant", "content": "It is 7."},
        ],
    }


ROWS = [agent_row("q1"), agent_row("q2")]
SECTION = EvaluateSection(metrics=["agent", "rouge", "exact_match", "final_number"])


def knows(prompt):
    if prompt.endswith("7"):
        return "It is 7."
    return f"<tool_call>\n{CALL}\n</tool_call>"


def evaluate(tmp_path, rules, rows=ROWS, section=SECTION, **kwargs):
    candidates = [Candidate(name, tmp_path, None, 1234) for name in rules]
    return evaluate_candidates(
        section,
        candidates,
        rows,
        tmp_path / "out",
        load_engine=lambda candidate: RuleEngine(rules[candidate.name]),
        **kwargs,
    )


def test_each_assistant_turn_is_one_step_with_the_true_history_before_it():
    first, second = samples_of_rows(ROWS[:1])
    assert [len(s.prompt_row["messages"]) for s in (first, second)] == [1, 3]
    assert first.target == f"<tool_call>\n{CALL}\n</tool_call>"
    assert second.target == "It is 7."
    assert (first.row_index, first.step, second.step) == (0, 0, 1)


def test_neighbouring_assistant_and_call_messages_are_one_turn():
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "I look."},
        {"role": "tool_call", "content": CALL},
        {"role": "tool_call", "content": json.loads(CALL)},
    ]
    (sample,) = samples_of_rows([{"messages": messages}])
    assert sample.target.count("<tool_call>") == 2
    assert sample.target.startswith("I look.\n")
    assert sample.target_react.count("Action: f") == 2


def test_a_perfect_model_gets_every_point(tmp_path):
    report = evaluate(tmp_path, {"tuned": knows}, train_rows=[agent_row("other")])
    found = report.candidates["tuned"].metrics
    values = {name: (score.value, score.n) for name, score in found.items()}
    assert values == {
        "Plan.EM": (1, 4),
        "Act.EM": (1, 2),
        "HalluRate": (0, 4),
        "Avg.F1": (1, 2),
        "Rouge-L": (1, 2),
        "rouge_l": (1, 4),
        "exact_match": (1, 4),
        "final_number": (1, 4),
    }
    assert report.candidates["tuned"].coverage == 1
    assert report.contamination["exact"] == 0


def test_thinking_before_the_answer_costs_no_point(tmp_path):
    report = evaluate(tmp_path, {"m": lambda prompt: "<think>\n\n</think>\n\n" + knows(prompt)})
    found = report.candidates["m"].metrics
    assert {name for name, score in found.items() if score.value != 1} == {"HalluRate"}


def test_the_section_reaches_the_engine(tmp_path):
    engine = RuleEngine(knows)
    section = EvaluateSection(
        max_new_tokens=9, temperature=0.5, seed=3, eval_batch_size=2, eval_limit=1
    )
    report = evaluate_candidates(
        section, [Candidate("m", tmp_path, None, 1)], ROWS, tmp_path, load_engine=lambda _: engine
    )
    (params, batch_size), *_ = engine.params
    assert (params.max_new_tokens, params.temperature, params.seed, batch_size) == (9, 0.5, 3, 2)
    assert (report.num_rows, report.num_samples) == (1, 2)


def test_a_failing_step_counts_as_a_failure_and_spoils_no_other(tmp_path):
    def fails_on_q2(prompt):
        if prompt == "<user>q2":
            raise ValueError("prompt is too long")
        return knows(prompt)

    report = evaluate(tmp_path, {"m": fails_on_q2})
    found = report.candidates["m"]
    assert (found.coverage, found.num_failed) == (0.75, 1)
    assert (found.metrics["Act.EM"].value, found.metrics["Act.EM"].n) == (0.5, 2)
    (bad,) = [s for s in report.samples["m"] if s.error]
    assert (bad.error, bad.finish_reason) == ("ValueError: prompt is too long", "error")
    assert bad.score == 0


@pytest.mark.parametrize(
    "row", [{"messages": None}, {"messages": [{"role": "user", "content": "q"}]}, {}]
)
def test_a_row_that_can_not_be_asked_lowers_the_coverage(tmp_path, row):
    report = evaluate(tmp_path, {"m": knows}, rows=[*ROWS, row])
    assert report.candidates["m"].coverage == pytest.approx(0.8)
    assert report.num_samples == 5


def test_cancelling_is_not_a_failed_step(tmp_path):
    def cancelled(prompt):
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        evaluate(tmp_path, {"m": cancelled})
    assert not (tmp_path / "out" / "report.json").exists()


def test_no_test_rows_is_bad_data(tmp_path):
    with pytest.raises(DataError, match="no test rows"):
        evaluate(tmp_path, {"m": knows}, rows=[])


def test_files_say_the_same_as_the_report(tmp_path):
    hostile = "<script>alert('x')</script>"
    report = evaluate(
        tmp_path, {"base": lambda _: hostile, "tuned": knows}, train_rows=[agent_row("q1")]
    )
    out = tmp_path / "out"
    saved = json.loads((out / "report.json").read_text())
    assert saved == json.loads(json.dumps(report.as_dict()))
    assert saved["contamination"]["exact"] == 1
    assert saved["candidates"]["tuned"]["size_bytes"] == 1234
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tuned"]["Act.EM"] == 1
    assert metrics["base"]["Act.EM"] == 0
    lines = [json.loads(line) for line in (out / "samples" / "base.jsonl").open()]
    assert [(s["row"], s["step"]) for s in lines] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert lines[0]["prompt"] == "<user>q1"
    assert lines[0]["output"] == hostile
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "1 of 2 test prompts" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")


def test_two_runs_differ_in_nothing_but_measured_speed(tmp_path):
    written = []
    for name in ("a", "b"):
        evaluate(tmp_path / name, {"base": lambda _: "no", "tuned": knows})
        out = tmp_path / name / "out"
        report = json.loads((out / "report.json").read_text())
        for found in report["candidates"].values():
            found["seconds"] = found["tokens_per_second"] = 0
        files = ("report.png", "metrics.json", "samples/base.jsonl", "samples/tuned.jsonl")
        written.append((report, [(out / file).read_bytes() for file in files]))
    assert written[0] == written[1]


def test_telling_failures_show_first_what_another_candidate_got_right(tmp_path):
    def only_calls(prompt):
        return "wrong" if prompt.endswith("7") else knows(prompt)

    def only_second(prompt):
        return knows(prompt) if prompt.endswith("7") else "wrong"

    report = evaluate(tmp_path, {"a": only_calls, "b": lambda _: "wrong", "c": only_second})
    assert [(s.row, s.step) for s in report.telling_failures("a")] == [(0, 1), (1, 1)]
    assert len(report.telling_failures("b")) == 4


def test_progress_counts_all_candidates(tmp_path):
    class Heard:
        def __init__(self):
            self.news = []

        def update(self, done, total, text):
            self.news.append((done, total, text))

    heard = Heard()
    evaluate(tmp_path, {"a": knows, "b": knows}, progress=heard)
    assert heard.news[0][1:] == (2, "a: busy")
    assert heard.news[-1] == (2, 2, "b: busy")
    assert [n[0] for n in heard.news] == sorted(n[0] for n in heard.news)
