"""From prompts to answers step by step: the loop that offline, streamed and served work share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from swiftcore.generation.answer import GrowingAnswer, Request
from swiftcore.generation.params import Decode, Delta
from swiftcore.generation.rows import RowBatch
from swiftcore.generation.sampling import Choice, choose, logprobs_of


@dataclass
class _Row:
    answer: GrowingAnswer
    choice: Choice
    ended: bool = False

    @property
    def request(self) -> Request:
        return self.answer.request


class Decoder:
    """Generates for a changing set of requests, one token each a step.

    Args:
        rows: the model's batch.
        stop_tokens: ids that end an answer.
        decode: turns (token ids, skip special tokens) into text.
        max_model_len: most tokens of prompt and answer together.
    """

    def __init__(
        self, rows: RowBatch, stop_tokens: frozenset[int], decode: Decode, max_model_len: int
    ) -> None:
        self._batch = rows
        self._stop_tokens = stop_tokens
        self._decode = decode
        self._max_model_len = max_model_len
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def can_admit(self) -> bool:
        """Tell whether requests may join now."""
        return self._batch.flexible or not self._rows

    def admit(self, requests: Sequence[Request]) -> list[tuple[Request, Delta]]:
        """Start requests together and return their first pieces."""
        logits = self._batch.admit([request.prompt for request in requests])
        new = [self._open(request) for request in requests]
        self._rows.extend(new)
        return self._take(new, logits)

    def step(self) -> list[tuple[Request, Delta]]:
        """Generate one more token for every request and return what became certain."""
        logits = self._batch.step([row.request.tokens[-1] for row in self._rows])
        return self._take(self._rows, logits)

    def drop(self, unwanted: Callable[[Request], bool]) -> None:
        """Stop generating for requests nobody waits for."""
        self._end([row for row in self._rows if unwanted(row.request)])

    def _open(self, request: Request) -> _Row:
        params = request.params
        seen = list(request.prompt) if params.repetition_penalty != 1 else []
        answer = GrowingAnswer(request, self._stop_tokens, self._decode, self._max_model_len)
        return _Row(answer, Choice(params, seen, request.index))

    def _take(self, rows: list[_Row], logits_BV: torch.Tensor) -> list[tuple[Request, Delta]]:
        choices = [row.choice for row in rows]
        tokens = choose(logits_BV, choices)
        logprobs = logprobs_of(logits_BV, tokens, choices)
        deltas, finished = [], []
        for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
            if row.ended:
                continue
            if row.choice.params.repetition_penalty != 1:
                row.choice.seen.append(token)
            delta = row.answer.take(token, logprob)
            if delta.completion:
                finished.append(row)
            if delta.completion or delta.text:
                deltas.append((row.request, delta))
        self._end(finished)
        return deltas

    def _end(self, rows: list[_Row]) -> None:
        if not rows:
            return
        for row in rows:
            row.ended = True
        going = [i for i, row in enumerate(self._rows) if not row.ended]
        if going and not self._batch.flexible:
            return  # ended rows ride along until the last one ends
        self._batch.keep(going)
        self._rows = [self._rows[i] for i in going]
