"""Self-cognition rows: placeholders for the model's name and author."""

import copy

import pytest

from swiftcore.data import RejectedRow
from swiftcore.data.rows.identity import SelfCognition
from swiftcore.errors import UsageError

ROW = {"query": "I am {{AUTHOR}}", "response": ["{{NAME}}"], "tag": "en", "n": 1}


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"query": "who?", "response": "I am {{NAME}} by {{AUTHOR}}"}, "I am Xiao Huang by Team"),
        ({"query": "who?", "response": "I am {{name}} by {{author}}"}, "I am Xiao Huang by Team"),
        ({"query": "你是谁", "response": "{{NAME}}"}, "小黄"),
        ({"query": "你是谁", "response": "{{NAME}}", "tag": "en"}, "Xiao Huang"),
        ({"query": "who?", "response": "{{NAME}}", "tag": "zh"}, "小黄"),
        ({"query": "who?", "response": "{{OTHER}} {NAME}"}, "{{OTHER}} {NAME}"),
    ],
)
def test_placeholders_are_filled_in_the_language_of_the_row(row, answer):
    filled = SelfCognition(["小黄", "Xiao Huang"], "Team").fill(row)
    assert filled == row | {"response": answer}


def test_placeholders_are_filled_wherever_they_stand_and_the_row_stays_as_it_is():
    before = copy.deepcopy(ROW)
    filled = SelfCognition("N", ("甲", "A")).fill(ROW)
    assert filled == {"query": "I am A", "response": ["N"], "tag": "en", "n": 1}
    assert before == ROW


def test_a_value_is_text_and_no_pattern():
    assert SelfCognition(r"\1{{AUTHOR}}", "A").fill("{{NAME}}") == r"\1{{AUTHOR}}"


def test_a_placeholder_without_a_value_is_an_error_with_the_argument():
    with pytest.raises(UsageError) as caught:
        SelfCognition(model_name="N").fill(ROW)
    assert caught.value.where == "data.model_author"
    assert "{{AUTHOR}}" in str(caught.value.found)


@pytest.mark.parametrize("forms", [[], ["a", "b", "c"], "", ["a", " "]])
def test_names_have_one_or_two_forms(forms):
    with pytest.raises(UsageError):
        SelfCognition(forms)


def test_endless_nesting_is_no_crash():
    row: object = "{{NAME}}"
    for _ in range(5000):
        row = [row]
    with pytest.raises(RejectedRow):
        SelfCognition("N").fill(row)
