"""Figures of scored texts: agreement with classes and numbers, and places in a ranking.

Shapes: B rows, N values, C outputs. All take and give float64 on the CPU.
"""

import math

import torch
from torch import Tensor


def accuracy(predicted: Tensor, expected: Tensor) -> float:
    """Return the share of rows that are right; a row of several outputs in all of them."""
    right = predicted == expected
    return float((right.all(dim=1) if right.dim() > 1 else right).double().mean())


def macro_f1(predicted_BC: Tensor, expected_BC: Tensor) -> float:
    """Return the mean over classes of F1; a class that is neither there nor predicted is left out.

    Args:
        predicted_BC: whether each class was predicted.
        expected_BC: whether it is there.
    """
    hits = (predicted_BC & expected_BC).sum(0).double()
    seen = (predicted_BC.sum(0) + expected_BC.sum(0)).double()
    occurs = seen > 0
    return float((2 * hits[occurs] / seen[occurs]).mean()) if occurs.any() else 0.0


def pearson(first_N: Tensor, second_N: Tensor) -> float | None:
    """Return the linear correlation; None where one of them does not vary."""
    first, second = first_N - first_N.mean(), second_N - second_N.mean()
    scale = float(first.norm() * second.norm())
    return float(first @ second) / scale if scale > 0 else None


def spearman(first_N: Tensor, second_N: Tensor) -> float | None:
    """Return the correlation of ranks, equal values sharing the mean of theirs."""
    return pearson(_ranks(first_N), _ranks(second_N))


def reciprocal_rank(scores_N: Tensor, fits_N: Tensor) -> float:
    """Return 1 / place of the first document that fits; equal scores count against it."""
    best = scores_N[fits_N].max()
    return 1 / (1 + int((scores_N[~fits_N] >= best).sum()))


def ndcg(scores_N: Tensor, fits_N: Tensor, depth: int | None = None) -> float:
    """Return the discounted gain of documents that fit, over that of the best order.

    Args:
        scores_N: scores of documents; among equal ones those that fit come last.
        fits_N: whether each fits its query.
        depth: how many places count; None is all.

    Source: Järvelin, Kekäläinen 2002, binary relevance.
    """
    order = sorted(range(len(scores_N)), key=lambda at: (-float(scores_N[at]), bool(fits_N[at])))
    gain = sum(1 / math.log2(2 + place) for place, at in enumerate(order[:depth]) if fits_N[at])
    ideal = sum(1 / math.log2(2 + place) for place in range(int(fits_N.sum()))[:depth])
    return gain / ideal


def _ranks(values_N: Tensor) -> Tensor:
    _, places, counts = torch.unique(values_N, sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[places]
