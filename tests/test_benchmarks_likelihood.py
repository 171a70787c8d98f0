"""Log-likelihoods and perplexity against sums computed token by token."""

import math

import pytest
import torch

from swiftcore.errors import UsageError
from swiftcore.evaluation.benchmarks.planning import benchmark_files, plan_benchmarks
from swiftcore.evaluation.benchmarks.responding import LocalModel
from swiftcore.evaluation.benchmarks.running import run_benchmarks
from swiftcore.generation import TransformersEngine
from swiftcore.progress import Silent
from swiftcore.recipe import EvaluateSection
from swiftcore.stages.answering_engines import PromptedEngine
from swiftcore.template import get_template
from tests.tiny_model import build_model, build_tokenizer


@pytest.fixture(scope="module")
def engine():
    tokenizer = build_tokenizer()
    return TransformersEngine(build_model(tokenizer, max_position_embeddings=128), tokenizer)


def one_by_one(engine, prompt, continuation):
    """The definition: the log-probability of each token after all before it, added up."""
    total = 0.0
    for place, token in enumerate(continuation):
        ids = torch.tensor([prompt + continuation[:place]])
        with torch.no_grad():
            logits = engine.model(input_ids=ids).logits[0, -1].double()
        total += (logits[token] - logits.logsumexp(0)).item()
    return total


def test_continuations_score_as_one_by_one_whatever_shares_their_batch(engine):
    pairs = [
        ([5, 6, 7], [8]),
        ([5, 6, 7], [9]),
        ([9, 8, 7, 6, 5, 4], [3, 4, 5]),
        ([30], [31, 32, 33, 34, 35]),
        ([5, 6, 7, 8], [9, 10]),
    ]
    expected = [one_by_one(engine, *pair) for pair in pairs]
    for batch_size in (1, 3, 16):
        found = engine.log_likelihoods(pairs, batch_size=batch_size)
        assert found == pytest.approx(expected, abs=1e-4)


def test_pairs_that_need_one_forward_share_it(engine, monkeypatch):
    calls = []
    forward = engine.model.forward
    monkeypatch.setattr(
        engine.model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k)
    )
    engine.log_likelihoods([([5, 6], [token]) for token in range(8, 12)], batch_size=1)
    assert len(calls) == 1


@pytest.mark.parametrize("pair", [([], [1]), ([1], []), ([1] * 128, [2]), ([1], [10_000, 3])])
def test_what_can_not_be_scored_is_refused(engine, pair):
    with pytest.raises(UsageError):
        engine.log_likelihoods([pair], batch_size=1)


def test_perplexity_is_the_exponential_of_the_mean_loss_over_all_tokens(engine, tmp_path):
    texts = ["the quick brown fox jumps", "please add 12 and 30 " * 20]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    wanted = EvaluateSection(
        eval_dataset=["perplexity"],
        eval_dataset_args={"perplexity": {"local_path": str(path)}},
        eval_batch_size=4,
    )
    benchmarks = plan_benchmarks(wanted, benchmark_files(wanted, tmp_path))
    prompted = PromptedEngine(engine, get_template("chatml", engine.tokenizer))
    scores = run_benchmarks(benchmarks, LocalModel(prompted, 4), wanted, Silent())
    loss = count = 0
    for text in texts:
        for prompt, continuation in engine.text_windows(text):
            loss -= one_by_one(engine, prompt, continuation)
            count += len(continuation)
    assert count == sum(len(engine.text_ids(text)) - 1 for text in texts)
    assert scores.metrics["perplexity/log_loss"].value == pytest.approx(loss / count, abs=1e-5)
    found = scores.metrics["perplexity/perplexity"]
    assert found.value == pytest.approx(math.exp(loss / count), rel=1e-4)
    assert found.low <= found.value <= found.high


def test_choices_of_a_row_are_scored_after_its_prompt(engine):
    template = get_template("chatml", engine.tokenizer)
    model = LocalModel(PromptedEngine(engine, template), 4)
    row = {"messages": [{"role": "user", "content": "Is it A or B?\nAnswer:"}]}
    long = {"messages": [{"role": "user", "content": "x " * 500}]}
    answer, failed = model.compare([row, long], [["A", "B"], ["A", "B"]], Silent())
    prompt = template.encode(row, mode="infer").input_ids
    expected = [one_by_one(engine, list(prompt), engine.text_ids(letter)) for letter in "AB"]
    assert answer.log_likelihoods == pytest.approx(expected, abs=1e-4)
    assert "no room" in failed.error
