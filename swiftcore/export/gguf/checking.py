"""Proof that a GGUF file holds the folder's model: the same tokens, nearly the same answers.

Shape suffixes: T tokens of a text, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swiftcore.errors import GateRefused

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

CHECK_TEXTS = (
    "The quick brown fox jumps over the lazy dog, 1234567 times; isn't it?",
    "def add(a, b):\n    return a + b\n\n\n\tGrüße aus Köln, 東京 и Москва 🙂  end  ",
)
# Largest mean divergence from the unconverted model, in nats a token: rounding stays below, a wrong
# layout or a missing tensor lies far above.
_MAX_DIVERGENCE = {
    "f32": 1e-6,
    "f16": 1e-3,
    "bf16": 1e-2,
    "q8_0": 2e-2,
    "q6_k": 5e-2,
    "q5_k_m": 0.1,
    "q4_k_m": 0.3,
}


@dataclass(frozen=True)
class Deviation:
    """How far a model's answers are from the original's: nats a token, and both perplexities."""

    kl_divergence: float
    perplexity: float
    unquantized_perplexity: float


def check_rows(tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Return the token ids of the texts that are compared."""
    return [tokenizer(text, add_special_tokens=False).input_ids for text in CHECK_TEXTS]


def refuse_other_tokens(
    found: Sequence[Sequence[int]], tokenizer: "PreTrainedTokenizerBase", name: str
) -> None:
    """Make sure that a file's tokenizer cut the texts as the model's does.

    Raises:
        GateRefused: it did not.
    """
    for text, expected, ids in zip(CHECK_TEXTS, check_rows(tokenizer), found, strict=True):
        if list(ids) != expected:
            raise GateRefused(
                "the tokenizer in the GGUF file makes other tokens than the model's",
                where=name,
                found=f"{ids[:12]} for {text[:30]!r}",
                expected=str(expected[:12]),
                do="report this, with tokenizer.json of the model",
            )


def logits_of(model: "nn.Module", rows: Sequence[Sequence[int]]) -> "list[Tensor]":
    """Return what a model expects after each token, [T, V] for every row."""
    import torch

    with torch.no_grad():
        return [model(torch.tensor([list(ids)])).logits[0].float() for ids in rows]


def deviation(
    expected: "Sequence[Tensor]", found: "Sequence[Tensor]", rows: Sequence[Sequence[int]]
) -> Deviation:
    """Compare logits [T, V] of the original model with those of the converted one.

    Args:
        expected: of the original model, a tensor a row.
        found: likewise, of the converted one.
        rows: token ids that both read.
    """
    from torch.nn import functional

    total = 0.0
    for expected_TV, found_TV in zip(expected, found, strict=True):
        p_TV, q_TV = expected_TV.log_softmax(-1), found_TV.log_softmax(-1)
        total += float(functional.kl_div(q_TV, p_TV, reduction="sum", log_target=True))
    return Deviation(
        kl_divergence=total / sum(map(len, rows)),
        perplexity=_perplexity(found, rows),
        unquantized_perplexity=_perplexity(expected, rows),
    )


def refuse_divergence(divergence: float, outtype: str) -> None:
    """Make sure that a model is no farther from the original than its type explains.

    Raises:
        GateRefused: it is.
    """
    limit = _MAX_DIVERGENCE[outtype]
    if math.isfinite(divergence) and divergence <= limit:
        return
    raise GateRefused(
        "the model read back from the GGUF file does not answer as the folder does",
        where="gguf",
        found=f"divergence {divergence:.3g} nats a token",
        expected=f"at most {limit:.3g} for {outtype}",
        do="use --to_gguf f16, or f32 to see whether it is rounding",
    )


def _perplexity(logits: "Sequence[Tensor]", rows: Sequence[Sequence[int]]) -> float:
    import torch
    from torch.nn import functional

    loss = sum(
        float(functional.cross_entropy(row_TV[:-1], torch.tensor(ids[1:]), reduction="sum"))
        for row_TV, ids in zip(logits, rows, strict=True)
    )
    return math.exp(loss / sum(len(ids) - 1 for ids in rows))
