"""BFCL: calls against the allowed ones."""

import json

import pytest

from swiftcore.errors import DataError
from swiftcore.evaluation.answering import Answer, Call
from swiftcore.evaluation.benchmarks.calls import call_difference
from swiftcore.evaluation.benchmarks.planning import benchmark_files, plan_benchmarks
from swiftcore.evaluation.benchmarks.responding import LocalModel
from swiftcore.evaluation.benchmarks.running import graded
from swiftcore.generation import Completion, SamplingParams
from swiftcore.progress import Silent
from swiftcore.recipe import EvaluateSection
from tests.test_benchmarks import RuleEngine, write_lines

FUNCTION = {
    "name": "trip.plan",
    "description": "Plan a trip.",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "budget": {"type": "float"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "stay": {"type": "dict", "properties": {"stars": {"type": "integer"}}},
            "fast": {"type": "boolean", "optional": True},
        },
        "required": ["city", "days"],
    },
}
WANTED = {
    "trip.plan": {
        "city": ["New York", "NYC"],
        "days": [3],
        "budget": [100.0, ""],
        "tags": [["art", "food"], ""],
        "stay": [{"stars": [4, 5], "pool": [True, ""]}, ""],
        "fast": ["", False],
    }
}
FUNCTIONS = {"trip_plan": FUNCTION}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"city": "new york", "days": 3}, None),
        ({"city": "N.Y.C.", "days": 3, "budget": 100}, None),
        ({"city": "NYC", "days": 3, "tags": ["Art", "food"], "stay": {"stars": 5}}, None),
        ({"city": "NYC", "days": 3, "fast": False}, None),
        ({"city": "Boston", "days": 3}, "city is 'Boston'"),
        ({"city": "NYC"}, "days is missing"),
        ({"city": "NYC", "days": "3"}, "days is '3'"),
        ({"city": "NYC", "days": 3.0}, "days is 3.0"),
        ({"city": "NYC", "days": True}, "days is True"),
        ({"city": "NYC", "days": 3, "fast": True}, "fast is True"),
        ({"city": "NYC", "days": 3, "fast": 0}, "fast is 0"),
        ({"city": "NYC", "days": 3, "extra": 1}, "extra is no argument"),
        ({"city": "NYC", "days": 3, "tags": ["food", "art"]}, "tags is"),
        ({"city": "NYC", "days": 3, "stay": {"stars": 2}}, "stay is"),
        ({"city": "NYC", "days": 3, "stay": {"pool": True}}, "stay is"),
        (None, "unreadable"),
    ],
)
def test_one_call(arguments, why):
    found = call_difference(Call("trip_plan", arguments), WANTED, FUNCTIONS)
    assert (found is None) == (why is None)
    assert why is None or why in found


def test_another_function_is_wrong():
    assert call_difference(Call("trip.book", {}), WANTED, FUNCTIONS)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "bfcl_v4"
    ask = [[{"role": "user", "content": "Plan 3 days in NYC."}]]
    for part in ("simple_python", "parallel", "irrelevance", "live_relevance", "multi_turn_base"):
        row = {"id": f"{part}_0", "question": ask, "function": [FUNCTION]}
        write_lines(folder / f"BFCL_v4_{part}.json", [row])
    once = [{"trip.plan": {"city": ["NYC"], "days": [3]}}]
    twice = [*once, {"trip.plan": {"city": ["NYC"], "days": [4]}}]
    for part, truth in (("simple_python", once), ("parallel", twice)):
        row = {"id": f"{part}_0", "ground_truth": truth}
        write_lines(folder / f"possible_answer/BFCL_v4_{part}.json", [row])
    return tmp_path


def planned(root, **args):
    section = EvaluateSection(eval_dataset=["bfcl_v4"], eval_dataset_args={"bfcl_v4": args})
    return plan_benchmarks(section, benchmark_files(section, root))[0]


def points(bfcl, subset, calls, text="well"):
    question = next(q for q in bfcl.questions if q.subset == subset)
    answer = Answer("", Completion([], text, "stop", 1, 1), None, tuple(calls))
    return graded(bfcl, question, answer).metrics["accuracy"]


def call(days):
    return Call("trip_plan", {"city": "NYC", "days": days})


def test_parts_are_graded_by_their_own_rule(root):
    bfcl = planned(root)
    assert {question.subset for question in bfcl.questions} == {
        "simple_python", "parallel", "irrelevance", "live_relevance",
    }  # fmt: skip
    assert points(bfcl, "simple_python", [call(3)], text="") == 1
    assert points(bfcl, "simple_python", [call(3), call(3)]) == 0
    assert points(bfcl, "simple_python", []) == 0
    assert points(bfcl, "parallel", [call(4), call(3)]) == 1
    assert points(bfcl, "parallel", [call(3), call(3)]) == 0
    assert points(bfcl, "irrelevance", []) == 1
    assert points(bfcl, "irrelevance", [], text="") == 0
    assert points(bfcl, "irrelevance", [call(3)]) == 0
    assert points(bfcl, "live_relevance", [call(9)]) == 1
    assert points(bfcl, "live_relevance", []) == 0
    assert points(bfcl, "live_relevance", [Call("", None)]) == 0


def test_tools_are_offered_in_json_schema(root):
    bfcl = planned(root)
    tool = bfcl.questions[0].row["tools"][0]["function"]
    assert tool["name"] == "trip_plan"
    kinds = {name: p["type"] for name, p in tool["parameters"]["properties"].items()}
    assert kinds["budget"] == "number"
    assert kinds["stay"] == "object"
    assert "optional" not in json.dumps(tool)


def test_calls_are_read_with_the_template_of_the_model(root):
    from swiftcore.template import parse_tool_calls

    engine = RuleEngine(lambda _: '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>')
    engine.template.parse_tool_calls = lambda text, tools: parse_tool_calls(text)
    rows = [planned(root).questions[0].row]
    (answer,) = LocalModel(engine, 1).answer(rows, SamplingParams(), Silent())
    assert answer.calls == (Call("f", {}),)


@pytest.mark.parametrize("part", ["multi_turn_base", "no_such_part"])
def test_a_part_that_can_not_be_asked_is_refused(root, part):
    with pytest.raises(DataError) as caught:
        planned(root, subset_list=[part])
    assert part in f"{caught.value.found}{caught.value.expected}"


def test_a_part_without_answers_names_the_file(root):
    (root / "bfcl_v4/possible_answer/BFCL_v4_parallel.json").unlink()
    with pytest.raises(DataError) as caught:
        planned(root)
    assert "possible_answer/BFCL_v4_parallel.json" in caught.value.expected
