"""What fewer bits cost: two models answer the same rows, token by token.

Only label tokens count, each predicted from the tokens before it. The Kullback-Leibler divergence
is sum p log(p / q) over the vocabulary, p the unquantized model's distribution, in nats. Where
accuracy counts the tokens that flip, it also sees the shifts that flip none.

A backend's environment loads this file by its path, so it imports torch alone.

Source: Kullback and Leibler 1951; Dutta et al. 2024, Accuracy is Not All You Need
(arXiv:2407.09141) for measuring compressed models with it.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

_IGNORED = -100
_LARGEST_EXPONENT = 700.0  # beyond it exp() overflows a float


@dataclass(frozen=True)
class Score:
    """How well a model predicts the label tokens, and how fast it read all tokens."""

    accuracy: float
    loss: float
    tokens_per_second: float

    @property
    def perplexity(self) -> float:
        """Return exp(loss)."""
        return math.exp(min(self.loss, _LARGEST_EXPONENT))


@dataclass(frozen=True)
class Comparison:
    """Both models' scores and the mean divergence of a label token's distribution, in nats."""

    unquantized: Score
    quantized: Score
    kl_divergence: float
    num_labels: int


@dataclass
class _Sums:
    right: int = 0
    loss: float = 0.0
    seconds: float = 0.0

    def score(self, num_labels: int, num_tokens: int) -> Score:
        return Score(
            accuracy=self.right / num_labels,
            loss=self.loss / num_labels,
            tokens_per_second=num_tokens / self.seconds,
        )


def compare(
    unquantized: "nn.Module",
    quantized: "nn.Module",
    rows: Sequence[Mapping[str, Any]],
    device: str = "cpu",
) -> Comparison:
    """Return how both models do on encoded rows, one row at a time.

    Args:
        unquantized: model in evaluation mode.
        quantized: likewise, with the same vocabulary.
        rows: encoded rows (`input_ids`, `labels` with -100 for no loss), each with a label.
        device: where the models are.
    """
    import torch

    before, after, divergence, labels, tokens = _Sums(), _Sums(), 0.0, 0, 0
    with torch.no_grad():
        for row in rows:
            target_T = torch.tensor(row["labels"][1:], device=device)
            chosen_T = target_T != _IGNORED
            target_N = target_T[chosen_T]
            expected_NV = _logits(unquantized, row["input_ids"], chosen_T, before)
            found_NV = _logits(quantized, row["input_ids"], chosen_T, after)
            _count(expected_NV, target_N, before)
            _count(found_NV, target_N, after)
            divergence += _divergence(expected_NV, found_NV)
            labels += len(target_N)
            tokens += len(row["input_ids"])
    return Comparison(
        unquantized=before.score(labels, tokens),
        quantized=after.score(labels, tokens),
        kl_divergence=divergence / labels,
        num_labels=labels,
    )


def _logits(model: "nn.Module", ids: Sequence[int], chosen_T: "Tensor", sums: _Sums) -> "Tensor":
    """Return the logits [N, V] that predict the chosen tokens, and add up the time it took."""
    import torch

    start = time.perf_counter()
    ids_BT = torch.tensor([list(ids)], device=chosen_T.device)
    logits_NV = model(input_ids=ids_BT, use_cache=False).logits[0, :-1][chosen_T].float()
    if chosen_T.device.type == "cuda":
        torch.cuda.synchronize(chosen_T.device)
    sums.seconds += time.perf_counter() - start
    return logits_NV


def _count(logits_NV: "Tensor", target_N: "Tensor", sums: _Sums) -> None:
    from torch.nn import functional

    sums.right += int((logits_NV.argmax(-1) == target_N).sum())
    sums.loss += float(functional.cross_entropy(logits_NV, target_N, reduction="sum"))


def _divergence(expected_NV: "Tensor", found_NV: "Tensor") -> float:
    from torch.nn import functional

    return float(
        functional.kl_div(
            found_NV.log_softmax(-1), expected_NV.log_softmax(-1), reduction="sum", log_target=True
        )
    )
