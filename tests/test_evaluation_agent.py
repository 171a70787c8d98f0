"""Agent step metrics against recorded behaviour, and both output styles by one definition."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftcore.evaluation import agent_step_metrics, react_from_hermes
from swiftcore.evaluation.agent import finish_text, react_from_output, tool_names

TOOLS = [{"name": "f"}, {"name": "g"}, {"name": "Finish"}]
RIGHT_CALL = 'Thought: t\nAction: f\nAction Input: {"a": 1}'


def call(name: str, written: str) -> str:
    return f"Thought: t\nAction: {name}\nAction Input: {written}"


# Recorded with EvalScope 1.14.1: (prediction, target, metrics).
RECORDED = {
    "wrong_action": (
        call("g", '{"a": 1}'),
        RIGHT_CALL,
        {"Act.EM": 0, "F1": 0, "HalluRate": 0, "plan_em": 1, "Easy_F1": 0, "Hard_F1": 0},
    ),
    "hallucinated_action": (
        call("zzz", '{"a": 1}'),
        RIGHT_CALL,
        {"Act.EM": 0, "F1": 0, "HalluRate": 1, "plan_em": 1, "Easy_F1": 0, "Hard_F1": 0},
    ),
    "extra_arg": (
        call("f", '{"a": 1, "b": 2}'),
        RIGHT_CALL,
        {"Act.EM": 1, "F1": 2 / 3, "HalluRate": 0, "plan_em": 1, "Hard_F1": 2 / 3},
    ),
    "empty_ref_only": (
        RIGHT_CALL,
        call("f", "{}"),
        {"Act.EM": 1, "F1": 0, "HalluRate": 0, "plan_em": 1, "Easy_F1": 0},
    ),
    "ref_not_json": (
        RIGHT_CALL,
        call("f", "oops"),
        {"Act.EM": 1, "HalluRate": 0, "plan_em": 1},
    ),
    "call_vs_finish": (RIGHT_CALL, finish_text("42"), {"HalluRate": 0, "plan_em": 0}),
    "unicode_value": (
        call("f", '{"城市": "巴黎"}'),
        call("f", '{"城市": "巴黎"}'),
        {"Act.EM": 1, "F1": 1, "HalluRate": 0, "plan_em": 1, "Hard_F1": 1},
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_recorded_case_scores_exactly_as_recorded(case):
    prediction, target, expected = RECORDED[case]
    assert agent_step_metrics(prediction, target, TOOLS) == expected


def test_finish_is_never_a_hallucination_even_when_it_is_not_listed():
    metrics = agent_step_metrics(finish_text("42"), finish_text("42"), [{"name": "f"}])
    assert metrics == {"plan_em": 1, "HalluRate": 0, "Rouge-L": 1}


def test_answering_instead_of_calling_scores_zero_on_the_call():
    metrics = agent_step_metrics(finish_text("42"), RIGHT_CALL, TOOLS)
    zero = {"plan_em": 0, "Act.EM": 0, "F1": 0, "Easy_F1": 0, "Hard_F1": 0, "HalluRate": 0}
    assert metrics == zero


def test_right_name_with_wrong_value_counts_half():
    metrics = agent_step_metrics(call("f", '{"a": 2}'), RIGHT_CALL, TOOLS)
    assert metrics["F1"] == 0.5


def test_giving_up_is_another_decision_than_answering():
    give_up = 'Action: Finish\nAction Input: {"return_type": "give_up_and_restart"}'
    assert agent_step_metrics(give_up, finish_text("42"), TOOLS)["plan_em"] == 0
    assert agent_step_metrics(give_up, give_up, TOOLS) == {"plan_em": 1, "HalluRate": 0}


@pytest.mark.parametrize("written", ['{"a": 1', "[1]", "", '{"a": 1} and more', "[" * 100_000])
def test_unreadable_input_is_a_failure_of_the_arguments_not_an_exception(written):
    metrics = agent_step_metrics(call("f", written), RIGHT_CALL, TOOLS)
    assert (metrics["Act.EM"], metrics["F1"], metrics["Hard_F1"]) == (1, 0, 0)


def test_invented_observation_after_the_action_is_not_read():
    text = RIGHT_CALL + "\nObservation: sunny\nAction: g\nAction Input: {}"
    assert agent_step_metrics(text, RIGHT_CALL, TOOLS)["Act.EM"] == 1


def test_parallel_calls_must_all_be_there_in_order():
    both = call("f", '{"a": 1}') + "\n" + call("g", '{"b": 2}')
    assert agent_step_metrics(RIGHT_CALL, both, TOOLS)["Act.EM"] == 0
    half = call("f", '{"a": 1}') + "\n" + call("g", '{"b": 3}')
    metrics = agent_step_metrics(half, both, TOOLS)
    assert (metrics["Act.EM"], metrics["F1"]) == (1, 0.75)


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "function", "function": {"name": "f"}}],
        '[{"name": "f"}]',
        ({"name": "f"}, {"no": "name"}, 3),
    ],
)
def test_tool_names_are_found_in_every_form(tools):
    assert tool_names(tools) == {"f"}


@pytest.mark.parametrize("tools", [None, "", "oops", "{}", [], 7])
def test_without_readable_tools_every_call_is_a_hallucination(tools):
    assert agent_step_metrics(RIGHT_CALL, RIGHT_CALL, tools)["HalluRate"] == 1


def test_hermes_call_scores_as_the_same_call_in_react():
    hermes = 'I look.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert react_from_hermes(hermes) == 'Thought: I look.\nAction: f\nAction Input: {"a": 1}'
    assert agent_step_metrics(react_from_hermes(hermes), RIGHT_CALL, TOOLS)["F1"] == 1


def test_hermes_arguments_may_be_a_json_string():
    text = '<tool_call>{"name": "f", "arguments": "{\\"a\\":\\n1}"}</tool_call>'
    assert agent_step_metrics(react_from_hermes(text), RIGHT_CALL, TOOLS)["F1"] == 1


def test_plain_answer_becomes_finish_and_thinking_is_dropped():
    react = react_from_hermes("<think>\nhm\n</think>\n\nIt is 42.\nAction: none")
    assert react == finish_text("It is 42.\nAction: none")
    assert agent_step_metrics(react, finish_text("it is 42 action none"), TOOLS)["Rouge-L"] == 1


@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}}',
        "<tool_call>\n[1]\n</tool_call>",
        '<tool_call>{"arguments": {}}</tool_call>',
        "<tool_call></tool_call>",
        "<think> and never stops",
        "",
        "   ",
    ],
)
def test_broken_hermes_output_fails_every_metric_that_applies(broken):
    metrics = agent_step_metrics(react_from_output(broken), RIGHT_CALL, TOOLS)
    assert metrics["plan_em"] == metrics["Act.EM"] == metrics["F1"] == metrics["HalluRate"] == 0


def test_two_unreadable_steps_do_not_agree():
    assert agent_step_metrics("", "Action:\nAction Input:", TOOLS)["plan_em"] == 0


def test_react_output_is_kept_as_it_is():
    assert react_from_output(RIGHT_CALL) == RIGHT_CALL


@given(st.text(alphabet=st.sampled_from('ab \n"{}:<>/[],ActionInput_toolcalFnshObrv')))
def test_no_text_makes_the_metrics_raise_or_leave_their_range(text):
    for target in (RIGHT_CALL, finish_text("42"), text):
        for prediction in (text, react_from_hermes(text)):
            metrics = agent_step_metrics(prediction, target, TOOLS)
            assert all(0 <= value <= 1 for value in metrics.values())


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4),
    st.sampled_from(["f", "g"]),
)
def test_a_call_agrees_with_itself_in_both_styles(arguments, name):
    written = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    react = react_from_hermes(f"<tool_call>\n{written}\n</tool_call>")
    metrics = agent_step_metrics(react, react, TOOLS)
    assert (metrics["plan_em"], metrics["Act.EM"], metrics["F1"]) == (1, 1, 1)
    assert ("Hard_F1" if arguments else "Easy_F1") in metrics
