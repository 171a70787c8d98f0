"""Preference rows in the spellings of their authors, and rows of a query with documents."""

import pytest
from normalizing import kept, why_rejected

SYSTEM = {"role": "system", "content": "S"}
USER, GOOD, BAD = (
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "good"},
    {"role": "assistant", "content": "bad"},
)
CHOSEN = {"messages": [USER, GOOD], "rejected_response": "bad"}
WHOLE = {"messages": [USER, GOOD], "rejected_messages": [USER, BAD]}


def _turn(role: str, text: str) -> dict:
    return {"from": role, "value": text}


def _doc(text: str) -> list:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, CHOSEN),
        ({"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}, CHOSEN),
        (
            {"instruction": "q", "input": "", "output": "old", "chosen": "good", "rejected": "bad"},
            CHOSEN,
        ),
        ({"conversations": [_turn("human", "q")], "chosen": "good", "rejected": "bad"}, CHOSEN),
        (
            {
                "conversations": [_turn("human", "q")],
                "chosen": _turn("gpt", "good"),
                "rejected": _turn("gpt", "bad"),
            },
            CHOSEN,
        ),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, CHOSEN),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, WHOLE),
        ({"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, WHOLE),
        ({"chosen_messages": [USER, GOOD], "rejected_messages": [USER, BAD]}, WHOLE),
        (
            {
                "chosen": "\n\nHuman: q\n\nAssistant: good",
                "rejected": "\n\nHuman: q\n\nAssistant: bad",
            },
            WHOLE,
        ),
        (
            {"system": "S", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            {"messages": [SYSTEM, USER, GOOD], "rejected_messages": [SYSTEM, USER, BAD]},
        ),
        (
            {"system": "S", "prompt": "q", "chosen": "good", "rejected": "bad", "margin": "0.5"},
            {"messages": [SYSTEM, USER, GOOD], "rejected_response": "bad", "margin": 0.5},
        ),
        (
            {"messages": [USER, GOOD], "chosen": "x", "rejected_response": "bad"},
            CHOSEN,
        ),
    ],
)
def test_a_preference_row_becomes_a_chosen_and_a_rejected_side(row, expected):
    assert kept(row) == expected


def test_a_transcript_keeps_its_turns():
    said = "\n\nHuman: a\nb\n\nAssistant: c\n\nHuman: d\n\nAssistant:"
    row = kept({"chosen": said, "rejected": f"{said} e"})
    assert [message["content"] for message in row["messages"]] == ["a\nb", "c", "d", ""]
    assert row["rejected_messages"][3] == {"role": "assistant", "content": "e"}


def test_a_rejected_answer_with_calls_stays_a_list():
    call = {"role": "tool_call", "content": '{"name": "f", "arguments": {}}'}
    row = {"prompt": "q", "chosen": [GOOD], "rejected": [call, BAD]}
    assert kept(row)["rejected_response"] == [call, BAD]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen equals rejected"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected is null"),
        ({"chosen": "a", "rejected": "b"}, "no column is the query"),
        ({"prompt": "q", "chosen": [USER, GOOD], "rejected": "b"}, "only an answer"),
        (
            {"query": "q", "response": "a", "rejected_response": ["b", "c"]},
            "{'response': 'positive', 'rejected_response': 'negative'}",
        ),
        ({"messages": [USER, GOOD], "rejected_response": [USER, BAD]}, "holds a question"),
    ],
)
def test_a_preference_row_without_two_sides_is_quarantined(row, reason):
    assert reason in why_rejected(row)


def test_the_mapping_that_a_reason_names_makes_the_row_good():
    row = {"query": "q", "response": "a", "rejected_response": ["b", "c"]}
    mapped = kept(row, columns={"response": "positive", "rejected_response": "negative"})
    assert mapped == {
        "messages": [USER],
        "positive_messages": [_doc("a")],
        "negative_messages": [_doc("b"), _doc("c")],
    }


@pytest.mark.parametrize(
    ("row", "negatives"),
    [
        ({"query": "q", "pos": ["d"], "neg": ["n", "m"], "prompt": "task"}, ["n", "m"]),
        ({"query": "q", "pos": ["d"], "neg": []}, []),
        ({"anchor": "q", "positive": "d", "negative": "n"}, ["n"]),
        ({"anchor": "q", "positive": "d"}, []),
        (
            {
                "question": "q",
                "answers": [],
                "positive_ctxs": [{"title": None, "text": "d"}],
                "negative_ctxs": ["m"],
                "hard_negative_ctxs": [{"title": "T", "text": "n"}],
            },
            ["T\nn", "m"],
        ),
    ],
)
def test_a_query_with_documents_becomes_an_embedding_row(row, negatives):
    expected = {"messages": [USER], "positive_messages": [_doc("d")]}
    if negatives:
        expected["negative_messages"] = [_doc(text) for text in negatives]
    assert kept(row) == expected


def test_two_sentences_with_a_score_are_an_embedding_row():
    row = {"sentence1": "q", "sentence2": "d", "score": "0.8"}
    assert kept(row) == {"messages": [USER], "positive_messages": [_doc("d")], "label": 0.8}


def test_two_sentences_with_a_label_need_a_mapping():
    row = {"text1": "q", "text2": "d", "label": 1}
    assert "{'text1': 'query', 'text2': 'positive'}" in why_rejected(row)
    embedding = kept(row, columns={"text1": "query", "text2": "positive"})
    assert embedding == {"messages": [USER], "positive_messages": [_doc("d")], "label": 1}
    classes = kept(row, columns={"text1": "instruction", "text2": "input"})
    assert classes == {"messages": [{"role": "user", "content": "q\nd"}], "label": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": "q", "pos": [], "neg": ["n"]}, "no document fits the query"),
        ({"query": None, "pos": ["d"]}, "documents without a query"),
        ({"query": "q", "pos": [{"id": 3}]}, "a positive document"),
        ({"sentence1": "a", "sentence2": "b"}, "no column holds a conversation"),
    ],
)
def test_documents_without_meaning_are_quarantined(row, reason):
    assert reason in why_rejected(row)
