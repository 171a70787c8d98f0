"""Rewards against ms-swift's recorded ones, their formulas, and everything that is no answer."""

import json
import math
from pathlib import Path

import pytest

from swiftcore.errors import UsageError
from swiftcore.rewards import get_reward, list_rewards, register_reward

RECORDED = Path(__file__).parents[2] / "shared/reference/golden_examples/rewards.jsonl"


def ids(*lengths: int) -> list[list[int]]:
    return [[0] * length for length in lengths]


def score(name: str, *completions: str | None, **given) -> list[float | None]:
    return get_reward(name)(list(completions), **given)


@pytest.mark.skipif(not RECORDED.is_file(), reason="recorded rewards are in ../shared, not here")
def test_recorded_rewards_of_ms_swift():
    cases = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    assert len(cases) == 17
    for case in cases:
        lengths = case.get("response_token_counts") or [0] * len(case["completions"])
        given = {"response_token_ids": ids(*lengths), **case["columns"]}
        found = get_reward(case["reward"], **case["args"])(case["completions"], **given)
        expected = case["expected"]
        if case["reward"] == "cosine":  # ours stays where ms-swift's turns back
            end = case["args"]["cosine_max_len"]
            last = expected[lengths.index(end)]
            expected = [last if n > end else e for n, e in zip(lengths, expected, strict=True)]
        if case["reward"] == "soft_overlong":  # ours has a floor
            expected = [max(value, -1.0) for value in expected]
        assert found == pytest.approx(expected), case["id"]


@pytest.mark.parametrize(
    ("completion", "solution", "reward"),
    [
        ("so it is \\boxed{0.5}", "\\frac{1}{2}", 1.0),
        ("first \\boxed{3}. No, \\boxed{4}", "4", 1.0),
        ("\\boxed{3} and \\boxed{4}", "4", 0.0),
        ("\\boxed{3}, \\boxed{4}", "\\boxed{4, 3}", 1.0),
        ("the answer is $x^2+1$", "1+x^2", 1.0),
        ("the answer is 4", "4", 0.0),  # neither boxed nor a formula
        ("4", "4", 0.0),
        ("<answer>4</answer>", "4", 1.0),
        ("<answer>the answer is 4</answer>", "#### 4", 1.0),
        ("<think>\\boxed{9}</think><answer>\\boxed{4}</answer>", "4", 1.0),
        ("\\boxed{1}", "x^2+1", 0.0),  # the number at the end of a formula is not its value
        ("\\boxed{42}", "So she has 42 apples.\n#### 42", 1.0),
        ("\\boxed{", "4", 0.0),
        ("", "4", 0.0),
        (None, "4", 0.0),
        ("\\boxed{4}", "", 0.0),
        ("\\boxed{4}", 4, 1.0),
        ("\\boxed{4}", None, None),
    ],
)
def test_accuracy(completion, solution, reward):
    assert score("accuracy", completion, solution=[solution]) == [reward]


@pytest.mark.parametrize(
    ("completion", "solution", "reward"),
    [
        ("She has 3 + 4 = 7 apples.", "She adds them.\n#### 7", 1.0),
        ("so 1,000 in all", "1000", 1.0),
        ("<think>7?</think>It is 8", "7", 0.0),
        ("nothing", "7", 0.0),
        ("7", None, None),
    ],
)
def test_math_takes_the_last_number(completion, solution, reward):
    assert score("math", completion, solution=[solution]) == [reward]


def test_exact_match_leaves_thinking_out():
    found = score("exact_match", "<think>hm</think>\nyes ", "Yes", solution=["yes", "yes"])
    assert found == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "completion", "reward"),
    [
        ("format", "<think>a\nb</think>\n <answer>4</answer>", 1.0),
        ("format", "<think>a</think><answer>4</answer>\n", 0.0),
        ("format", " <think>a</think><answer>4</answer>", 0.0),
        ("format", "<answer>4</answer>", 0.0),
        ("format", "", 0.0),
        ("react_format", "<think>a</think>\nAction: f\nAction Input: {}\n", 1.0),
        ("react_format", "Action: f\nAction Input: {}", 0.0),
    ],
)
def test_forms(name, completion, reward):
    assert score(name, completion) == [reward]


def test_cosine_is_the_formula_of_its_paper_and_stays_at_the_end():
    settings = {"cosine_max_len": 80, "cosine_min_len_value_correct": 2.0}
    reward = get_reward("cosine", **settings)
    found = reward(["\\boxed{4}"] * 4, solution=["4"] * 4, response_token_ids=ids(0, 20, 80, 800))
    by_hand = 0.5 + (2.0 - 0.5) * (1 + math.cos(math.pi * 20 / 80)) / 2
    assert found == pytest.approx([2.0, by_hand, 0.5, 0.5])
    assert reward(["no", "no"], solution=["4", None], response_token_ids=ids(0, 9)) == [-0.5, None]


def test_soft_overlong_falls_to_minus_one_and_no_further():
    found = get_reward("soft_overlong", soft_max_length=10, soft_cache_length=4)(
        [""] * 4, response_token_ids=ids(6, 7, 10, 99)
    )
    assert found == [0.0, -0.25, -1.0, -1.0]


def test_repetition_is_the_share_of_repeated_pieces():
    # a b a / b a b / a b a / b a b: two of four trigrams are new.
    assert score("repetition", "A b a B a b", "a b", "") == [-0.5, 0.0, 0.0]
    found = get_reward("repetition", repetition_n_grams=1, repetition_max_penalty=-2.0)(["x x x x"])
    assert found == [-1.5]


def test_toolbench_compares_arguments_as_json():
    solution = 'Action: f\nAction Input: {"a": 1, "b": [2]}'
    same = 'Thought: t\nAction: f\nAction Input: {"b": [2], "a": 1}'
    other = 'Action: f\nAction Input: {"a": true, "b": [2]}'
    assert score("toolbench", same, other, "", solution=[solution] * 3) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: get_reward("acuracy"), "accuracy?"),
        (lambda: get_reward("cosine"), "cosine_max_len"),
        (lambda: get_reward("cosine", cosine_max_len=0), "above 0"),
        (lambda: get_reward("format", colour=1), "colour"),
        (
            lambda: get_reward("soft_overlong", soft_max_length=4, soft_cache_length=4),
            "soft_max_length - 1",
        ),
        (lambda: get_reward("repetition", repetition_n_grams=0), "at least 1"),
        (lambda: score("accuracy", "4"), "solution"),
        (lambda: score("accuracy", "4", solution="4"), "a list of 1"),
        (lambda: score("accuracy", "4", "5", solution=["4"]), "1 values"),
        (lambda: get_reward("format")([{"role": "assistant"}]), "completions[0]"),  # type: ignore
        (lambda: register_reward("math"), "comes with this library"),
    ],
)
def test_what_has_no_meaning_is_refused(call, text):
    with pytest.raises(UsageError) as caught:
        call()
    assert text in str(caught.value)


def test_a_user_s_reward_is_found_by_its_name(monkeypatch):
    monkeypatch.setattr("swiftcore.rewards.registry._registered", {})

    @register_reward("short")
    def short(completions, **columns):
        return [float(len(text) < 3) for text in completions]

    @register_reward("shorter_than")
    class ShorterThan:
        def __init__(self, letters):
            self.letters = letters

        def __call__(self, completions, **columns):
            return [float(len(text) < self.letters) for text in completions]

    assert get_reward("short")(["ab", "abc"]) == [1.0, 0.0]
    assert get_reward("shorter_than", letters=9)(["abc"]) == [1.0]
    assert list_rewards()[-2:] == ["short", "shorter_than"]
    with pytest.raises(UsageError, match="settings"):
        get_reward("short", letters=1)
