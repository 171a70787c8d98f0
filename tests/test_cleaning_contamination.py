"""Evaluation rows inside training rows are found, and what they merely have in common is not."""

import pickle
import random

import pytest

from swiftcore.data import normalize_rows
from swiftcore.data.cleaning.contamination import ContaminationCounts, ContaminationIndex, Match
from swiftcore.data.readers.files import read_rows
from swiftcore.errors import UsageError
from tests.making import REPO

GSM8K = REPO.parent / "shared/data/math"


def qa(question: str, answer: str = "", system: str | None = None) -> dict[str, object]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


def sentence(seed: int, number: int = 40) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10**6)}" for _ in range(number))


EVAL = [qa(sentence(place), "yes") for place in range(20)]


def test_thirteen_words_in_a_row_are_a_match_and_twelve_are_not():
    index = ContaminationIndex.from_rows(EVAL, similarity=None)
    words = sentence(3).split()
    inside = " ".join(words[5:18])
    match = index.check(qa(f"Well, {inside.upper()}! And so on.", sentence(100)))
    assert match == Match(3, "ngram", inside, round(1 / 29, 4))
    assert index.check(qa(" ".join(words[5:17]), sentence(100))) is None
    assert index.check(qa(sentence(101))) is None


def test_whole_copy_has_the_share_of_one_and_names_its_row():
    index = ContaminationIndex.from_rows(EVAL)
    match = index.check(EVAL[7])
    assert match is not None
    assert (match.eval_row, match.kind, match.share) == (7, "ngram", 1.0)
    assert match.reason() == "the row shares an n-gram with an evaluation row"


def test_length_of_the_ngram_can_be_chosen():
    index = ContaminationIndex.from_rows(EVAL, n=8, similarity=None)
    match = index.check(qa(" ".join(sentence(3).split()[5:13]), sentence(100)))
    assert match is not None
    assert len(match.text.split()) == 8


def test_short_texts_match_when_they_are_equal():
    questions = [qa("What is the capital of France?", "Paris"), qa("Hi", "Hello there")]
    index = ContaminationIndex.from_rows(questions)
    same_question = index.check(qa("what is the capital of FRANCE", sentence(1)))
    assert same_question == Match(0, "text", "what is the capital of france", 1.0)
    assert index.check(qa("What is the capital of Spain?", "Madrid")) is None
    # A greeting alone is no proof; greeting and answer are.
    assert index.check(qa("Hi", sentence(2))) is None
    whole = index.check(qa("hi", "hello, there"))
    assert whole is not None
    assert whole.eval_row == 1


def test_instructions_that_many_evaluation_rows_share_do_not_count():
    frame = "Answer the following multiple choice question with the letter of the right choice only"
    rows = [qa(f"{frame}: {sentence(place)}", "A", system=frame) for place in range(30)]
    index = ContaminationIndex.from_rows(rows)
    assert index.check(qa(f"{frame}: {sentence(99)}", "B", system=frame)) is None
    assert index.check(qa(f"{frame}: {sentence(5)}", "B")) is not None


def test_reworded_row_is_found_by_minhash():
    words = sentence(4, 60).split()
    for place in range(9, 60, 10):
        words[place] = f"other{place}"
    reworded = qa(" ".join(words), "no")
    index = ContaminationIndex.from_rows([qa(sentence(4, 60), "yes")], similarity=0.3)
    match = index.check(reworded)
    assert match is not None
    assert (match.kind, match.eval_row) == ("similar", 0)
    assert 0.3 <= match.share < 0.7
    without = ContaminationIndex.from_rows([qa(sentence(4, 60), "yes")], similarity=None)
    assert without.check(reworded) is None


def test_chinese_is_compared_by_characters():
    text = "小明有五个苹果，他给了小红两个，又买了三个，请问小明现在一共有多少个苹果？"
    index = ContaminationIndex.from_rows([qa(text, "六个")])
    match = index.check(qa("题目：" + text.replace("，", " "), "答案不同"))
    assert match is not None
    assert match.kind == "ngram"
    assert index.check(qa("小红有三个橘子，请问她能不能给小明一个？", "可以")) is None


def test_answer_is_the_same_after_pickling_and_without_order():
    index = ContaminationIndex.from_rows(EVAL)
    copy = pickle.loads(pickle.dumps(index))
    rows = [*EVAL, *(qa(sentence(place)) for place in range(200, 220))]
    assert [copy.check(row) for row in rows] == [index.check(row) for row in rows]


def test_counts_merge_over_chunks():
    index = ContaminationIndex.from_rows(EVAL)
    rows = [EVAL[2], EVAL[2], qa(sentence(300)), qa(" ".join(sentence(5).split()[:15]))]
    whole, first, second = ContaminationCounts(), ContaminationCounts(), ContaminationCounts()
    for row in rows:
        whole.add(index.check(row))
    for counts, part in ((first, rows[:1]), (second, rows[1:])):
        for row in part:
            counts.add(index.check(row))
    first.merge(second)
    assert first == whole
    assert (whole.rows, whole.contaminated) == (4, 3)
    assert whole.eval_rows[2] == 1.0
    assert set(whole.eval_rows) == {2, 5}


def test_no_evaluation_rows_find_nothing():
    index = ContaminationIndex.from_rows([])
    assert index.check(qa(sentence(1))) is None
    assert index.check(qa("")) is None


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match="two units"):
        ContaminationIndex.from_rows([], n=1)
    with pytest.raises(UsageError, match="threshold"):
        ContaminationIndex.from_rows([], similarity=2)


@pytest.mark.skipif(not GSM8K.is_dir(), reason="../shared/data is not here")
def test_gsm8k_test_rows_planted_among_training_rows_are_found():
    def rows(name: str, number: int) -> list[dict[str, object]]:
        raw = [row.row for row in read_rows(GSM8K / name, name)]
        return normalize_rows(raw[:number])[0]

    test, train = rows("gsm8k_test.jsonl.gz", 600), rows("gsm8k_train.jsonl.gz", 1500)
    index = ContaminationIndex.from_rows(test)
    clean = sum(index.check(row) is not None for row in train)
    assert clean <= 0.01 * len(train)
    for place in range(0, len(test), 20):
        match = index.check(test[place])
        assert match is not None
        assert match.eval_row == place
