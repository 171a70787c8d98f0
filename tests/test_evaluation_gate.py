"""The gate: what may pass, and that nothing missing, unanswered or contaminated does."""

import copy
import math
import pickle

import pytest

from swiftcore.errors import GateRefused
from swiftcore.evaluation import champion_summary, contamination, decide
from swiftcore.recipe import Gate

REPORT = {
    "test_digest": "d1",
    "contamination": {"exact": 0, "normalized": 0, "num_test": 100},
    "candidates": {
        "merged": {
            "metrics": {"Act.EM": {"value": 0.96}, "HalluRate": {"value": 0.02}},
            "coverage": 1.0,
        },
        "quantized": {
            "metrics": {"Act.EM": {"value": 0.95}, "HalluRate": {"value": 0.05}},
            "coverage": 1.0,
        },
    },
}
GATE = Gate(metric="Act.EM", min_value=0.8)


def report_with(**changes):
    report = copy.deepcopy(REPORT)
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = report
        for parent in parents:
            target = target[parent]
        target[last] = value
    return report


def failed(decision):
    return [check.name for check in decision.reasons if not check.passed]


def test_a_good_candidate_passes_and_every_condition_is_listed():
    champion = champion_summary(REPORT, "merged", "demo@1")
    decision = decide(REPORT, GATE, "quantized", champion, "merged")
    assert decision.passed
    assert [check.name for check in decision.reasons] == [
        "Act.EM",
        "coverage",
        "contamination",
        "recovery of merged",
        "champion demo@1",
    ]
    decision.raise_if_refused()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.9", True])
def test_metric_that_is_no_finite_number_is_refused(value):
    report = report_with(candidates__merged__metrics={"Act.EM": {"value": value}})
    assert failed(decide(report, GATE, "merged")) == ["Act.EM"]


@pytest.mark.parametrize("report", [{}, report_with(candidates__merged__metrics={})])
def test_missing_evaluation_is_refused_even_with_no_least_value(report):
    assert "Act.EM" in failed(decide(report, Gate(min_value=0.0), "merged"))


def test_unanswered_rows_are_refused():
    report = report_with(candidates__merged__coverage=0.99)
    assert failed(decide(report, GATE, "merged")) == ["coverage"]


@pytest.mark.parametrize(
    "found", [None, {"exact": 1, "normalized": 0}, {"exact": 0, "normalized": 2}]
)
def test_contaminated_or_unchecked_test_rows_are_refused(found):
    assert failed(decide(report_with(contamination=found), GATE, "merged")) == ["contamination"]


def test_lost_recovery_is_refused():
    report = report_with(candidates__quantized__metrics={"Act.EM": {"value": 0.9}})
    assert failed(decide(report, GATE, "quantized", None, "merged")) == ["recovery of merged"]
    assert decide(report, GATE, "quantized", None, "quantized").passed


def test_recovery_of_a_missing_candidate_is_refused():
    assert failed(decide(REPORT, GATE, "merged", None, "ghost")) == ["recovery of ghost"]


@pytest.mark.parametrize(("theirs", "passes"), [(0.98, True), (0.981, False)])
def test_a_model_worse_than_the_champion_by_more_than_allowed_is_refused(theirs, passes):
    champion = {"name": "demo@1", "test_digest": "d1", "metrics": {"Act.EM": theirs}}
    assert decide(REPORT, GATE, "merged", champion).passed is passes


def test_champion_on_other_rows_is_not_compared_and_that_is_said():
    champion = {"name": "demo@1", "test_digest": "other", "metrics": {"Act.EM": 1.0}}
    decision = decide(REPORT, GATE, "merged", champion)
    assert decision.passed
    assert decision.reasons[-1].found.startswith("not compared")


def test_where_lower_is_better_a_higher_value_is_worse():
    gate = Gate(metric="HalluRate", min_value=0.9, max_drop_from_champion=0.02)
    champion = champion_summary(REPORT, "merged", "demo@1")
    assert decide(REPORT, gate, "merged", champion).passed
    assert failed(decide(REPORT, gate, "quantized", champion)) == ["champion demo@1"]


def test_refusal_is_one_block_with_every_failed_condition_and_exit_code_4():
    report = report_with(candidates__merged__coverage=0.5, contamination=None)
    with pytest.raises(GateRefused) as caught:
        decide(report, Gate(min_value=0.99), "merged").raise_if_refused()
    block = str(pickle.loads(pickle.dumps(caught.value)))
    assert caught.value.exit_code == 4
    for text in ("Act.EM: 0.9600", "at least 0.99", "coverage: 0.5000", "not checked", "do:"):
        assert text in block


def row(*user_texts):
    return {
        "messages": [
            {"role": "system", "content": "the same everywhere"},
            *({"role": "user", "content": text} for text in user_texts),
            {"role": "assistant", "content": "ok"},
        ]
    }


def test_contamination_finds_exact_and_normalised_prompts_and_keeps_digits_apart():
    train = [row("Weather in Paris on 3 May?"), row("Hello")]
    test = [
        row("Weather in Paris on 3 May?"),
        row("  weather in PARIS\non 3\u00a0May? "),
        row("Weather in Paris on 4 May?"),
        row("Weather in Paris", "on 4 May?"),
    ]
    found = contamination(train, iter(test))
    assert (found.exact, found.normalized, found.num_train, found.num_test) == (1, 1, 2, 4)
    assert [(example["row"], example["match"]) for example in found.examples] == [
        (0, "exact"),
        (1, "normalized"),
    ]


def test_contamination_tells_long_shared_runs_of_words_and_does_not_gate_on_them():
    story = "the harbour master wrote the names of seven boats into a heavy green book each evening"
    test = [row(f"Why, when {story}, was he afraid?"), row("Hello")]
    found = contamination([row(f"Once {story} and then left."), row("Hello")], test)
    assert (found.exact, found.shared_ngram, found.overlapping) == (1, 1, 1)


def test_contamination_of_plain_text_rows_compares_the_text():
    text = {"messages": [{"role": "assistant", "content": "Once upon a time"}]}
    assert contamination([text], [text]).exact == 1
    assert contamination([text, {}], [row("Hello"), {}]).overlapping == 0
