"""What is read out of answers and how it is graded: right, wrong, empty, refused, malformed."""

import pytest

from swiftcore.evaluation.benchmarks.choice import chosen_letter
from swiftcore.evaluation.benchmarks.hard import stated_answer
from swiftcore.scores.latex import NotAFormula, evaluate
from swiftcore.scores.mathematics import answers_agree, final_answer, last_boxed

CHOICES = ("Rome", "Paris", "Oslo", "Bern")
REFUSAL = "I'm sorry, but I can't help with that."


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("ANSWER: B", "B"),
        ("The capital is not Rome.\nANSWER: B", "B"),
        ("answer: (b)", "B"),
        ("**ANSWER: B**", "B"),
        ("The answer is A. No, wait: the answer is B.", "B"),
        (r"So it is \boxed{B}.", "B"),
        (r"\boxed{\text{B}}", "B"),
        ("B", "B"),
        (" (B) \nbecause it is", "B"),
        ("B. Paris", "B"),
        ("Paris.", "B"),
        ("", None),
        (REFUSAL, None),
        ("A dog would say Rome or Paris", None),
        ("ANSWER: E", None),
        ("ANSWER:", None),
        ("The answer is apparent", None),
        ("ANSWER: Definitely", None),
        ("Rome or Paris", None),
        ("\x00\ufffd{{{", None),
    ],
)
def test_the_choice_in_an_answer(answer, letter):
    assert chosen_letter(answer, CHOICES) == letter


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"First \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        ("3 + 4 = 7\n#### 7", "7"),
        ("So the answer is 1,200 dollars.", "1,200 dollars"),
        ("**Final answer:** 42", "42"),
        ("We have 2 and 3, in all $5$.", "5"),
        ("She has 12 eggs and sells 9", "9"),
        (r"It is \boxed{12", "12"),
        ("", None),
        (REFUSAL, None),
    ],
)
def test_the_answer_that_a_solution_states(solution, answer):
    assert final_answer(solution) == answer


def test_a_box_that_never_closes_is_none():
    assert last_boxed(r"\boxed{\frac{1}{2") is None


SAME = [
    ("0.5", r"\frac{1}{2}"),
    (r"\frac{\sqrt{3}}{3}", r"1/\sqrt{3}"),
    (r"\frac9{19}", "9/19"),
    ("137.5", r"137 \frac{1}{2}"),
    ("10080", r"10,\!080"),
    ("$1,000", "1000"),
    ("1000 dollars", "1000"),
    ("864", r"864 \mbox{ inches}^2"),
    ("120", r"120^\circ"),
    ("18.90", r"\$18.90"),
    ("5", r"x = 5"),
    ("-2, 1", "1,-2"),
    (r"\{2, 1\}", r"\{1, 2\}"),
    ("(-infty,0]", r"(-\infty, 0]"),
    (r"3-2\sqrt2, 3+2\sqrt{2}", r"3 \pm 2 \sqrt{2}"),
    ("2x + y = 0", "y = -2x"),
    ("(x-1)(x+1)", "x^2 - 1"),
    ("2^{2010}", "4^{1005}"),
    (r"\text{East}", "east"),
    (r"\text{(C)}", "C"),
    (r"\sqrt[3]{8}", "2"),
    (r"\log_2 8", "3"),
    ("52_8", "52_8"),
    ("-12i+1", "1 - 12i"),
    (r"\sin^2 x + \cos^2 x", "1"),
    (
        r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}",
        r"\begin{pmatrix} 0.2 \\ -3.6 \end{pmatrix}",
    ),
]
DIFFERENT = [
    ("", "5"),
    (REFUSAL, "5"),
    ("4", "5"),
    ("-5", "5"),
    ("0.33", r"\frac{1}{3}"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    (r"\{1,2\}", r"\{1,2,2\}"),
    ("52_8", "52_9"),
    ("12", "1,2"),
    ("2x", "x^2"),
    ("y = 2x", "y = -2x"),
    ("west", "east"),
    (r"\frac{1}{0}", "5"),
    (r"\frac{", "1"),
    ("((((", "1"),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_equal_answers_agree_both_ways(left, right):
    assert answers_agree(left, right)
    assert answers_agree(right, left)


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_other_answers_do_not(left, right):
    assert not answers_agree(left, right)
    assert not answers_agree(right, left)


@pytest.mark.parametrize(
    "formula",
    [
        "9^{9^{9^{9}}}",
        "99999!",
        "(" * 5000,
        "9" * 5000,
        "__import__('os')",
        "1/0",
        r"\frac{1}{",
        "",
    ],
)
def test_a_hostile_formula_is_refused_at_once(formula):
    with pytest.raises(NotAFormula):
        evaluate(formula)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("Let us see. So the answer is (B).", "(B)"),
        ("The answer is No. Wait.\nSo the answer is Yes.", "Yes"),
        ("thinking ...\nvalid", "valid"),
        ("So the answer is -3.5.", "-3.5"),
        ("I would rather not say anything about this question at all", None),
        ("", None),
    ],
)
def test_the_answer_of_a_chain_of_thought(text, stated):
    assert stated_answer(text) == stated
