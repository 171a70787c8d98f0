"""Validation rows answered by the model in training, and how close the answers come.

A row's last stretch of label tokens is what should be answered, and all before it is the prompt: so
the prompt is, token by token, what the row trains.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from swiftcore.generation import SamplingParams
from swiftcore.scores.nlg import nlg_metrics
from swiftcore.training.forward import unwrapped
from swiftcore.training.job import TrainJob
from swiftcore.training.plugins import plugin
from swiftcore.training.rows import IGNORED, Row, read_rows
from swiftcore.training.token_figures import Sums, merge

_MAX_NEW_TOKENS = 64


class Answering:
    """Scores answers to the validation rows of a job.

    Args:
        job: names the rows, the tokenizer and the settings of generation.
    """

    def __init__(self, job: TrainJob) -> None:
        self._job = job

    @cached_property
    def _rows(self) -> list[tuple[list[int], list[int]]]:
        rows = read_rows(self._job.encoded_dir, "val") or ()
        return [parts for row in rows if (parts := last_answer(row))]

    @cached_property
    def _tokenizer(self) -> Any:
        from swiftcore.models import load_tokenizer

        return load_tokenizer(self._job.model_dir)

    def sums(self, model: Any, rank: int = 0, size: int = 1) -> Sums:
        """Return the sums of the scores over every size-th row, from the rank-th on.

        A prompt that leaves no room for an answer counts as an empty answer.
        """
        from swiftcore.generation import TransformersEngine

        train = self._job.train
        rows = self._rows[rank::size]
        params = SamplingParams(
            max_new_tokens=train.max_new_tokens or _MAX_NEW_TOKENS,
            temperature=train.temperature or 0.0,
            seed=train.seed,
        )
        with _own_forward(model):
            engine = TransformersEngine(model, self._tokenizer)
            fitting = [prompt for prompt, _ in rows if len(prompt) < engine.max_model_len]
            batch_size = train.per_device_eval_batch_size
            answers = iter(engine.generate(fitting, params, batch_size=batch_size))
        found: Sums = {}
        for prompt, target in rows:
            fits = len(prompt) < engine.max_model_len
            answer = next(answers).text if fits else ""
            expected = self._tokenizer.decode(target, skip_special_tokens=True)
            scores = nlg_metrics(answer, expected)
            if train.metric not in (None, "nlg"):
                scores[train.metric] = float(plugin("metric", train.metric)(answer, expected))
            merge(found, {name: [value, 1] for name, value in scores.items()})
        return found


def last_answer(row: Row) -> tuple[list[int], list[int]] | None:
    """Return a row's tokens before and in its last stretch of labels; None without a prompt."""
    ids: Sequence[int] = row["input_ids"]
    labelled = [label != IGNORED for label in row["labels"]]
    if not any(labelled):
        return None
    end = len(ids) - labelled[::-1].index(True)
    start = end
    while start and labelled[start - 1]:
        start -= 1
    return (list(ids[:start]), list(ids[start:end])) if start else None


@contextmanager
def _own_forward(model: Any) -> Iterator[None]:
    """Give a model its own forward back, which gives logits, for as long as it generates."""
    causal = unwrapped(model)
    installed = vars(causal).pop("forward")
    try:
        yield
    finally:
        causal.forward = installed
