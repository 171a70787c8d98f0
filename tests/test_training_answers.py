"""Answers to validation rows while training: their scores, and that they change nothing else."""

import math

import pytest
from training_setup import (
    counting_rows,
    make_job,
    timeless,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.generation import SamplingParams, TransformersEngine
from swiftcore.models import load_model, load_tokenizer
from swiftcore.recipe import TrainSection
from swiftcore.scores.nlg import bleu, nlg_metrics, rouge_n
from swiftcore.training.answering import last_answer
from swiftcore.training.metrics import read_lines

ANSWERS = {"rouge-1", "rouge-2", "rouge-l", "bleu-4"}


def test_rouge_n_counts_common_ngrams_as_often_as_both_have_them():
    """the cat the | the cat sat: two of three words are common, and one of two pairs."""
    assert rouge_n("the cat the", "The cat sat.", 1) == pytest.approx(2 / 3)
    assert rouge_n("the cat the", "The cat sat.", 2) == pytest.approx(1 / 2)
    assert rouge_n("a", "a", 2) == 1.0
    assert rouge_n("a", "b", 2) == 0.0


def test_bleu_by_hand():
    """5 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours; as long as the reference."""
    found = bleu("a b c d x", "x a b c d")
    assert found == pytest.approx((1 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # No triple and no four: 1/2 of one triple, 1/4 of no four; two words short of the reference.
    short = bleu("a b c", "a b x c d")
    expected = math.exp(1 - 5 / 3) * (1 * 1 / 2 * (1 / 2) / 1 * (1 / 4) / 1) ** 0.25
    assert short == pytest.approx(expected)
    assert bleu("a b", "c d") == 0.0
    assert bleu("a b c d e", "a b c d e") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        ([-100, 2, -100, 4, 5], ([1, 2, 3], [4, 5])),
        ([-100, -100, 3, 4, -100], ([1, 2], [3, 4])),
        ([1, 2, 3, 4, 5], None),
        ([-100] * 5, None),
    ],
)
def test_the_last_stretch_of_labels_is_what_is_answered(labels, parts):
    assert last_answer({"input_ids": [1, 2, 3, 4, 5], "labels": labels}) == parts


def test_answers_are_those_of_the_model_and_training_goes_on_as_without(tmp_path):
    rows = counting_rows(16)
    base = tiny_base(tmp_path / "base")
    encoded = write_encoded(tmp_path / "encoded", rows[:12], rows[12:])
    settings = {"max_steps": 4, "save_steps": 2, "logging_steps": 1}
    full = {"train_type": "full"}
    runs = []
    for name, extra in (
        ("plain", {}),
        ("answered", {"predict_with_generate": True, "max_new_tokens": 8}),
    ):
        job = make_job(tmp_path / name, base, encoded, tuner=full, **settings, **extra)
        result = train_in_this_process(job)
        runs.append(timeless(read_lines(job.work_dir / "metrics.jsonl")))
    scores = [line for line in runs[1] if "eval_loss" in line]
    assert len(scores) == 2
    names = {f"eval_{name}" for name in ANSWERS}
    without = [{key: v for key, v in line.items() if key not in names} for line in runs[1]]
    assert without == runs[0]
    engine = TransformersEngine(load_model(job.out_dir), load_tokenizer(job.out_dir))
    sums = dict.fromkeys(ANSWERS, 0.0)
    for row in rows[12:]:
        answer = engine.generate(
            [row["input_ids"][:2]], SamplingParams(max_new_tokens=8, temperature=0.0), batch_size=1
        )[0]
        target = engine.decode(row["input_ids"][2:], True)
        for name, value in nlg_metrics(answer.text, target).items():
            sums[name] += value / 4
    assert {name: scores[-1][f"eval_{name}"] for name in ANSWERS} == pytest.approx(sums)
    best = max(scores, key=lambda line: line["eval_rouge-l"])
    assert result.metrics["best_metric"] == best["eval_rouge-l"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 8}, "does nothing without train.predict_with_generate"),
        ({"predict_with_generate": True, "method": "pt"}, "needs prompts"),
        ({"predict_with_generate": True, "fsdp": "fsdp2"}, "needs whole weights"),
        ({"predict_with_generate": True, "eval_strategy": "no"}, "needs evaluations"),
    ],
)
def test_settings_that_have_no_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainSection(**settings)
