"""IFEval's instructions, one by one, and the four figures."""

import json

import pytest

from swiftcore.errors import DataError
from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.instruction_checks import CHECKS, count_sentences, follows
from swiftcore.evaluation.benchmarks.instructions import loose_forms
from swiftcore.evaluation.benchmarks.planning import benchmark_files, plan_benchmarks
from swiftcore.evaluation.benchmarks.running import graded, run_benchmarks
from swiftcore.generation import Completion
from swiftcore.progress import Silent
from swiftcore.recipe import EvaluateSection

pytest.importorskip("py3langid")

ENGLISH = "this is a plain english sentence about the weather"
GERMAN = "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter."
# instruction: settings, texts that follow it, texts that do not
CASES = {
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"}, ["AB and CD"], ["AB and cd"]),
    "change_case:english_capital": ({}, [ENGLISH.upper()], [ENGLISH, GERMAN.upper()]),
    "change_case:english_lowercase": ({}, [ENGLISH], [ENGLISH.upper(), GERMAN.lower()]),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Say it."}, ["Say it. Yes."], ["Yes. Say it."]),
    "combination:two_responses": ({}, ["one******two"], ["one", "one******one", "a******b******c"]),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2}, ["[name], [city]"], ["[name]"]),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"}, ["Hi\nP.P.S. more", "x\nP.P.S more"], ["Hi\nP.S. more"]),
    "detectable_format:constrained_response": ({}, ["My answer is maybe."], ["Maybe."]),
    "detectable_format:json_format": ({}, ['{"a": 1}', "```json\n[1]\n```"], ["{a: 1}", "a"]),
    "detectable_format:multiple_sections": (
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb"], ["SECTION 1\na"]),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2}, ["* a\n* b", "- a\n- b"], ["* a", "* a\n* b\n* c"]),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2}, ["*a* and *b c*", "**a** *b*"], ["*a*", "* a\n* b"]),
    "detectable_format:title": ({}, ["<<song>>\nla"], ["song", "<<>>"]),
    "keywords:existence": ({"keywords": ["sun", "Moon"]}, ["The SUN, the moon"], ["the sun"]),
    "keywords:forbidden_words": ({"forbidden_words": ["art"]}, ["a party"], ["Art is long"]),
    "keywords:frequency": (
        {"keyword": "no", "frequency": 2, "relation": "less than"}, ["No."], ["no, no"]),
    "keywords:letter_frequency": (
        {"letter": "e", "let_frequency": 2, "let_relation": "at least"}, ["Eve"], ["Ed"]),
    "language:response_language": ({"language": "de"}, [GERMAN], [ENGLISH]),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        ["a\n\nThen, b"], ["a\n\nb", "a\n\nThen\n\nc"]),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2}, ["a\n***\nb", "a\n***\nb\n***"], ["a", "a\n***\n***\nb"]),
    "length_constraints:number_sentences": (
        {"num_sentences": 2, "relation": "at least"}, ["One. Two!"], ["Dr. Who, e.g. one."]),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": "less than"}, ["two words"], ["one two three"]),
    "punctuation:no_comma": ({}, ["a b"], ["a, b"]),
    "startend:end_checker": ({"end_phrase": "The end."}, ["So. THE END."], ["The end. Really"]),
    "startend:quotation": ({}, ['"quoted"'], ['quoted"', '"']),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_an_instruction_is_followed_or_not(name):
    settings, right, wrong = CASES[name]
    assert [follows(name, text, settings) for text in right] == [True] * len(right)
    assert [follows(name, text, settings) for text in wrong] == [False] * len(wrong)
    assert not follows(name, " \n", settings)


def test_sentences_are_counted_as_people_do():
    text = '1. Mr. Smith paid 3.50 euros. Was it, e.g., too much? No! "Never."'
    assert count_sentences(text) == 4


def test_a_loose_form_lacks_the_first_line_the_last_line_or_asterisks():
    assert loose_forms("Sure!\n*a*\nBye") == [
        "Sure!\n*a*\nBye", "Sure!\n*a*", "*a*\nBye", "*a*",
        "Sure!\na\nBye", "Sure!\na", "a\nBye", "a",
    ]  # fmt: skip


def rows_to(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = EvaluateSection(eval_dataset=["ifeval"])
    return section, plan_benchmarks(section, benchmark_files(section, path.parent))


def row(prompt, **instructions):
    names = [name.replace("__", ":") for name in instructions]
    return {"prompt": prompt, "instruction_id_list": names, "kwargs": list(instructions.values())}


class Says:
    def __init__(self, *texts):
        self.texts = texts

    def answer(self, rows, params, progress):
        return [Answer("", Completion([], text, "stop", 1, 1), None) for text in self.texts]


def test_prompts_and_instructions_are_counted_apart(tmp_path):
    section, planned = rows_to(
        tmp_path / "ifeval.jsonl",
        [
            row("a", punctuation__no_comma={}),
            row("b", punctuation__no_comma={"language": None}, startend__quotation={},
                detectable_format__title={}),
        ],
    )  # fmt: skip
    scores = run_benchmarks(planned, Says("Sure, here:\nfine", "no comma"), section, Silent())
    values = {name: found.value for name, found in scores.metrics.items()}
    assert values == {
        "ifeval/prompt_level_strict": 0,
        "ifeval/inst_level_strict": pytest.approx(1 / 4),
        "ifeval/prompt_level_loose": pytest.approx(1 / 2),
        "ifeval/inst_level_loose": pytest.approx(2 / 4),
    }
    assert "startend:quotation" in scores.samples[1].note


def test_an_empty_answer_follows_nothing_and_weighs_as_much(tmp_path):
    _, (planned,) = rows_to(tmp_path / "ifeval.jsonl", [row("a", punctuation__no_comma={})])
    empty = Answer("", Completion([], "", "stop", 1, 1), None)
    grade = graded(planned, planned.questions[0], empty)
    assert set(grade.metrics.values()) == {0}
    assert grade.weights == {"inst_level_strict": 1, "inst_level_loose": 1}


def test_an_unknown_instruction_is_named_with_its_line(tmp_path):
    with pytest.raises(DataError) as caught:
        rows_to(tmp_path / "ifeval.jsonl", [row("a", punctuation__no_dot={})])
    assert caught.value.found == "punctuation:no_dot"
    assert caught.value.where.endswith("ifeval.jsonl:1")
