"""ROUGE-L, exact match, final numbers, and intervals that do not pretend."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftcore.evaluation import (
    bootstrap_interval,
    estimate,
    exact_match,
    final_number,
    numbers_agree,
    rouge_l,
    wilson_interval,
)
from swiftcore.scores.text import lcs_length, tokenize

TOKENS = st.lists(st.sampled_from("abcd"), max_size=20)


def lcs_by_table(left, right):
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, x in enumerate(left, 1):
        for j, y in enumerate(right, 1):
            best = max(table[i - 1][j], table[i][j - 1])
            table[i][j] = table[i - 1][j - 1] + 1 if x == y else best
    return table[-1][-1]


@given(TOKENS, TOKENS)
def test_lcs_equals_the_textbook_table(left, right):
    assert lcs_length(left, right) == lcs_by_table(left, right)


def test_rouge_l_of_a_worked_example():
    # Lin 2004, section 3: "police killed the gunman" / "police kill the gunman": 3 of 4 words.
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("the answer is 42", "42") == pytest.approx(0.4)


def test_rouge_l_ignores_case_and_punctuation_and_reads_chinese_by_character():
    assert tokenize("It's 巴黎, 3.5kg! カナ 한국") == [
        *("it", "s", "巴", "黎", "3", "5kg", "カ", "ナ", "한", "국")
    ]
    assert rouge_l("今天北京晴", "今天北京雨") == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("a", "b", "value"), [("", "", 1), ("", "x", 0), ("x", "", 0), ("!", "?", 1)]
)
def test_rouge_l_of_texts_without_words(a, b, value):
    assert rouge_l(a, b) == value


def test_exact_match_forgives_outer_white_space_only():
    assert exact_match(" yes\n", "yes") == 1
    assert exact_match("Yes", "yes") == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 + 2 = 4\n#### 42", "42"),
        ("#### 1\n#### $1,234.50 in total", "1234.5"),
        ("so 3 apples and 5 pears.", "5"),
        ("about 1,234,567", "1234567"),
        ("it fell by -3.", "-3"),
        ("5-3", "3"),
        ("#### .5", "0.5"),
        ("#### none, though 7 was near", "7"),
        ("3 pears\n#### none", None),
        ("no number", None),
        ("", None),
    ],
)
def test_final_number(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


def test_numbers_agree_by_value_and_not_by_spelling():
    assert numbers_agree("It is $1,000.00.", "... #### 1000") == 1
    assert numbers_agree("no idea", "#### 1000") == 0
    assert numbers_agree("7", "a row without a number") is None


@pytest.mark.parametrize("successes", [0, 10])
def test_all_or_nothing_still_has_an_interval_of_some_width(successes):
    found = estimate([1.0] * successes + [0.0] * (10 - successes))
    assert found.interval == "wilson"
    assert found.low <= found.value <= found.high
    # Wilson 1927 for 0 of 10 at 95 %: z^2 / (10 + z^2) = 0.2775.
    assert found.high - found.low == pytest.approx(0.2775, abs=1e-4)


def test_wilson_interval_of_a_known_case():
    # R: prop.test(96, 100, correct = FALSE) gives 0.9016 to 0.9843.
    assert wilson_interval(96, 100) == pytest.approx((0.9016, 0.9843), abs=1e-4)


def test_bootstrap_is_repeatable_and_close_to_the_normal_interval():
    values = np.random.default_rng(0).uniform(size=400).tolist()
    low, high = bootstrap_interval(values, num_resamples=4000, seed=1)
    assert (low, high) == bootstrap_interval(values, num_resamples=4000, seed=1)
    assert (low, high) != bootstrap_interval(values, num_resamples=4000, seed=2)
    half = 1.96 * np.std(values) / 20
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=4e-3)


def test_wider_confidence_gives_a_wider_interval():
    values = [0.0, 0.5, 1.0, 0.25] * 10
    narrow, wide = (bootstrap_interval(values, confidence=c) for c in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_large_samples_are_resampled_in_slices(monkeypatch):
    monkeypatch.setattr("swiftcore.evaluation.intervals._MAX_INDICES", 250)
    low, high = bootstrap_interval([0.0, 0.5, 1.0] * 30, num_resamples=101)
    assert 0.3 < low < 0.5 < high < 0.7


def test_non_finite_scores_give_no_interval_and_none_is_an_error():
    assert all(math.isnan(end) for end in bootstrap_interval([1.0, math.nan]))
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_holds_its_value_and_stays_in_range(values):
    found = estimate(values, num_resamples=100)
    assert -1e-12 <= found.low <= found.high <= 1 + 1e-12
    assert found.n == len(values)
