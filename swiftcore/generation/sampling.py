"""Choosing the next token of every row of a batch, and telling how likely it was.

Each row draws from its own seeded stream, one number a step, and the token is found by inverting
the cumulative distribution. So an answer does not depend on which other rows share its batch.

Shape legend: B rows, V vocabulary.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from swiftcore.generation.logprobs import TokenLogprob
from swiftcore.generation.params import SamplingParams


@dataclass
class Choice:
    """What one row needs to choose its tokens."""

    params: SamplingParams
    seen: list[int]
    """Prompt and answer so far, for the repetition penalty."""
    index: int = 0
    """Which of the answers with this seed; tells rows with equal seeds apart."""
    stream: random.Random = field(init=False)

    def __post_init__(self) -> None:
        seed = self.params.seed
        self.stream = random.Random(None if seed is None else f"{seed}:{self.index}")


def choose(logits_BV: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    """Return the next token of every row."""
    penalized = [i for i, choice in enumerate(choices) if choice.params.repetition_penalty != 1]
    if penalized:
        logits_BV = logits_BV.float().clone()
        for row in penalized:
            _penalize(logits_BV[row], choices[row])
    tokens = logits_BV.argmax(-1).tolist()
    sampled = [i for i, choice in enumerate(choices) if not choice.params.greedy]
    if sampled:
        drawn = _sample(logits_BV[sampled].float(), [choices[i] for i in sampled])
        for row, token in zip(sampled, drawn, strict=True):
            tokens[row] = token
    return tokens


def logprobs_of(
    logits_BV: torch.Tensor, tokens: Sequence[int], choices: Sequence[Choice]
) -> list[TokenLogprob | None]:
    """Return how likely each row's token was, None for rows that don't ask.

    Args:
        logits_BV: as the model gave them; what the rows' settings make of them is not told.
        tokens: the token that each row has chosen.
        choices: whether and how much each row asks.
    """
    told: list[TokenLogprob | None] = [None] * len(choices)
    asking = [i for i, choice in enumerate(choices) if choice.params.logprobs]
    if not asking:
        return told
    log_probs_BV = logits_BV[asking].float().log_softmax(-1)
    chosen_B1 = torch.tensor([tokens[i] for i in asking], device=logits_BV.device)[:, None]
    chosen = log_probs_BV.gather(-1, chosen_B1)[:, 0].tolist()
    most = max(choices[i].params.top_logprobs for i in asking)
    top = log_probs_BV.topk(min(most, log_probs_BV.shape[-1]), dim=-1)
    for i, logprob, ids, values in zip(
        asking, chosen, top.indices.tolist(), top.values.tolist(), strict=True
    ):
        count = choices[i].params.top_logprobs
        likeliest = tuple(zip(ids[:count], values[:count], strict=True))
        told[i] = TokenLogprob(tokens[i], logprob, likeliest)
    return told


def _penalize(logits_V: torch.Tensor, choice: Choice) -> None:
    ids = torch.tensor(sorted(set(choice.seen)), device=logits_V.device)
    scores = logits_V[ids]
    penalty = choice.params.repetition_penalty
    logits_V[ids] = torch.where(scores > 0, scores / penalty, scores * penalty)


def _sample(logits_BV: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=logits_BV.device, dtype=torch.float64)[:, None]

    temperature = column([choice.params.temperature for choice in choices])
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    # float64 and the maximum taken out first, so a tiny temperature overflows nothing.
    shifted_BV = (sorted_BV.double() - sorted_BV[:, :1].double()) / temperature
    probs_BV = shifted_BV.softmax(-1)
    top_p = column([choice.params.top_p for choice in choices])
    vocab = logits_BV.shape[-1]
    top_k = column([float(choice.params.top_k or vocab) for choice in choices])
    rank_V = torch.arange(vocab, device=logits_BV.device)
    keep_BV = ((probs_BV.cumsum(-1) - probs_BV) < top_p) & (rank_V < top_k)
    cumulative_BV = (probs_BV * keep_BV).cumsum(-1)
    draw = column([choice.stream.random() for choice in choices]) * cumulative_BV[:, -1:]
    # right=True skips entries of zero probability; the clamp guards against rounding at the top.
    ranks = torch.searchsorted(cumulative_BV, draw, right=True).clamp_max(keep_BV.sum(-1, True) - 1)
    return order_BV.gather(-1, ranks)[:, 0].tolist()
