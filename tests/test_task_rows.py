"""How rows of scored texts become tokens and targets, and what recipes say about them."""

import pytest
from pydantic import ValidationError

from swiftcore.models import load_tokenizer
from swiftcore.recipe import Recipe
from swiftcore.recipe.tasks import Task
from swiftcore.template.encoder import Drop
from tests.task_setup import (
    CLASSES,
    EMBEDDING,
    LABELS,
    NUMBERS,
    RERANKER,
    WRITER,
    encode,
    outcomes_of,
    tiny_bert,
    user,
)
from tests.training_setup import tiny_base

CHATML = {"template": "chatml"}
BERT = {"template": "bert"}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("decoder") / "base")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("encoder") / "base")


def texts(base, sample) -> list[str]:
    tokenizer = load_tokenizer(base)
    return [tokenizer.decode(ids) for ids in sample.texts]


def test_labels_become_targets(decoder):
    row = {"messages": [user("the fox")]}

    def targets(task, label):
        return encode(decoder, task, [{**row, "label": label}], **CHATML)[0].targets

    assert targets(CLASSES, 2) == [2.0]
    assert targets(NUMBERS, 0.7) == [pytest.approx(0.7)]
    assert targets(LABELS, [0, 2]) == [1.0, 0.0, 1.0]


def test_a_bad_label_drops_its_row_alone(decoder):
    rows = [{"messages": [user("the fox")], "label": label} for label in (3, -1, "dog", None, 1)]
    outcomes = outcomes_of(decoder, CLASSES, rows, **CHATML)
    assert [isinstance(outcome, Drop) for outcome in outcomes] == [True] * 4 + [False]
    assert outcomes[0].found == "3"


def test_an_embedded_text_ends_with_the_stop_token(decoder, encoder):
    row = {
        "messages": [user("fox")],
        "positive_messages": [[user("dog")]],
        "negative_messages": [[user("train")]],
    }
    sample = encode(decoder, EMBEDDING, [row], **CHATML)[0]
    assert sample.targets == [1.0, 0.0]
    assert texts(decoder, sample)[1].endswith(
        "<|im_start|>user\ndog<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    )
    sample = encode(encoder, EMBEDDING, [row], **BERT)[0]
    tokenizer = load_tokenizer(encoder)
    assert sample.texts == [tokenizer(text)["input_ids"] for text in ("fox", "dog", "train")]


def test_an_answer_with_a_label_is_a_pair(decoder):
    """The form of ms-swift 3: query, response and label."""
    row = {"messages": [user("fox"), {"role": "assistant", "content": "dog"}], "label": 0.8}
    assert encode(decoder, EMBEDDING, [row], **CHATML)[0].targets == [pytest.approx(0.8)]
    row["label"] = 1
    assert encode(decoder, RERANKER, [row], **CHATML)[0].targets == [1.0]


def test_a_reranker_reads_the_query_with_each_document(decoder, encoder):
    row = {
        "messages": [user("weather")],
        "positive_messages": [[user("Paris")]],
        "negative_messages": [[user("fox")], [user("dog")]],
    }
    sample = encode(encoder, RERANKER, [row], **BERT)[0]
    assert sample.targets == [1.0, 0.0, 0.0]
    assert texts(encoder, sample)[1].split() == ["[CLS]", "weather", "[SEP]", "fox", "[SEP]"]
    judged = texts(decoder, encode(decoder, WRITER, [row], **CHATML)[0])[0]
    assert "<Query>: weather\n<Document>: Paris<|im_end|>" in judged
    assert 'can only be "yes" or "no"' in judged
    assert judged.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("strategy", ["delete", "left", "right"])
def test_a_long_text_loses_words_and_never_its_frame(strategy, encoder):
    words = " ".join(["fox", *["dog"] * 30, "train"])
    row = {"messages": [user(words)], "label": 1}
    section = {**BERT, "max_length": 8, "truncation_strategy": strategy}
    (outcome,) = outcomes_of(encoder, CLASSES, [row], **section)
    if strategy == "delete":
        assert isinstance(outcome, Drop)
        assert outcome.reason == "longer than max_length"
        return
    (text,) = texts(encoder, outcome)
    kept = text.split()
    assert len(outcome.texts[0]) == 8
    assert (kept[0], kept[-1]) == ("[CLS]", "[SEP]")
    assert ("fox" in kept, "train" in kept) == (strategy == "right", strategy == "left")


def test_control_tokens_in_data_stay_text(decoder):
    row = {"messages": [user("fox <|im_end|> dog")], "label": 0}
    (sample,) = encode(decoder, CLASSES, [row], **CHATML)
    end = load_tokenizer(decoder).convert_tokens_to_ids("<|im_end|>")
    assert sample.texts[0].count(end) == 1  # the template's own


def recipe(model: dict, **sections) -> Recipe:
    return Recipe(
        name="r", model={"model": "m", **model}, data={"dataset": ["rows.jsonl"]}, **sections
    )


def test_what_a_task_leaves_open_is_inferred():
    assert recipe({}).model.task == Task()
    task = recipe({"task_type": "seq_cls", "num_labels": 1}).model.task
    assert task.problem_type == "regression"
    task = recipe({"task_type": "seq_cls", "num_labels": 3}).model.task
    assert task.problem_type == "single_label_classification"
    assert recipe({"task_type": "reranker"}).model.task.num_labels == 1


@pytest.mark.parametrize(
    ("model", "sections", "reason"),
    [
        ({"num_labels": 2}, {}, "num_labels does nothing"),
        ({"pooling": "cls"}, {}, "pooling does nothing"),
        ({"task_type": "seq_cls"}, {}, "needs model.num_labels"),
        ({"task_type": "embedding"}, {"train": {"loss_type": "mse"}}, "no loss of task_type"),
        ({"task_type": "embedding"}, {"train": {"metric": "acc"}}, "no figure of embedding"),
        ({"task_type": "embedding"}, {"train": {"packing": True, "packing_length": 9}}, "packing"),
        ({"task_type": "embedding"}, {"evaluate": {}}, "the evaluate stage answers"),
        ({"task_type": "embedding"}, {"quantize": {}}, "the quantize stage answers"),
        ({"task_type": "reranker"}, {"train": {"infonce_temperature": 0.2}}, "does nothing"),
        (
            {"task_type": "embedding"},
            {"train": {"infonce_fake_neg_margin": 0.2}},
            "does nothing without infonce_mask",
        ),
        (
            {"task_type": "seq_cls", "num_labels": 3},
            {"train": {"loss_type": "mse"}},
            "does not go with problem_type",
        ),
        ({}, {"train": {"infonce_use_batch": False}}, "does nothing with loss_type"),
    ],
)
def test_a_setting_that_does_nothing_is_refused(model, sections, reason):
    with pytest.raises(ValidationError, match=reason):
        recipe(model, **sections)
