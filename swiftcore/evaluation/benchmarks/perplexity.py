"""Perplexity of texts: how well a model foresees what is written, and nothing is answered.

`log_loss` is the mean negative log-likelihood of a token, in nats; perplexity is its exponential.
Texts longer than the model's context are scored in windows that follow each other, each told the
token before it. Perplexities of models with different tokenizers can't be compared.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from swiftcore.errors import DataError
from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.places import read_rows
from swiftcore.evaluation.benchmarks.question import Benchmark, Files, Grade, Question, Source
from swiftcore.evaluation.intervals import Estimate
from swiftcore.recipe.benchmarks import BenchmarkArgs


def grade_likelihood(question: Question, answer: Answer, text: str) -> Grade:
    """Turn a text's log-likelihood into its loss, which weighs as much as it has tokens."""
    (likelihood,), (count,) = answer.log_likelihoods or (math.nan,), answer.num_tokens or (1,)
    return Grade({"log_loss": -likelihood / count}, weights={"log_loss": float(count)})


def derived(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Return the perplexity with its interval."""
    loss = metrics.get("log_loss")
    if loss is None:
        return {}
    value, low, high = (math.exp(min(part, 700)) for part in (loss.value, loss.low, loss.high))
    return {"perplexity": replace(loss, value=value, low=low, high=high)}


def _read(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    path = files["test"]
    if path.suffix == ".txt":
        texts = [path.read_text(encoding="utf-8", errors="replace")]
    else:
        texts = [str(row.get("text", row.get("content", ""))) for row in read_rows(path)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError(
            "There is no text to score.", where=path, expected="a field text, or a .txt file"
        )
    subset = path.name.partition(".")[0]
    return [Question(subset, {"messages": [{"role": "user", "content": t}]}, "", t) for t in texts]


PERPLEXITY = Benchmark(
    "perplexity",
    {"test": Source(("perplexity.jsonl*", "perplexity.txt", "test.jsonl*", "*.txt"))},
    _read,
    grade_likelihood,
    metrics=("log_loss",),
    scores_text=True,
    derive=derived,
)
