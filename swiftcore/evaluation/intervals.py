"""Confidence intervals of mean scores.

Scores that are only 0 or 1 get Wilson's interval, all others the percentile bootstrap. The
bootstrap would give 0 of n and n of n an interval of zero width, as if the truth were known;
Wilson's stays honest there and for small n.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

# Resampled indices held at once; 4 million of int64 are 32 MB.
_MAX_INDICES = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` rows with its confidence interval and the method that made it."""

    value: float
    low: float
    high: float
    n: int
    interval: str

    def as_dict(self) -> dict[str, float | int | str]:
        """Return the fields as they stand in report.json."""
        return asdict(self)


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, num_resamples: int = 1000, seed: int = 42
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (low, high) of the mean.

    Args:
        values: one score a row; non-finite scores give (nan, nan).
        confidence: share of the resampled means inside the interval.
        num_resamples: how many times n values are drawn with replacement.
        seed: makes the interval repeatable.

    Raises:
        ValueError: there are no values.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0:
        raise ValueError("an interval needs at least one value")
    if not np.isfinite(scores).all():
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    rows = max(1, _MAX_INDICES // scores.size)
    means = np.concatenate(
        [
            scores[
                rng.integers(scores.size, size=(min(rows, num_resamples - start), scores.size))
            ].mean(axis=1)
            for start in range(0, num_resamples, rows)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (low, high) of a proportion.

    Raises:
        ValueError: n is 0.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    if n == 0:
        raise ValueError("an interval needs at least one value")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the formula gives the share itself up to rounding; keep the value inside.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def estimate(
    values: Sequence[float], *, confidence: float = 0.95, num_resamples: int = 1000, seed: int = 42
) -> Estimate:
    """Return the mean of the values with the interval that suits them (see the module's text)."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if all(value in (0, 1) for value in values):
        low, high = wilson_interval(round(math.fsum(values)), n, confidence=confidence)
        return Estimate(mean, low, high, n, "wilson")
    low, high = bootstrap_interval(
        values, confidence=confidence, num_resamples=num_resamples, seed=seed
    )
    return Estimate(mean, low, high, n, "bootstrap")


def weighted_estimate(
    values: Sequence[float],
    weights: Sequence[float],
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 42,
) -> Estimate:
    """Return the weighted mean of the values; rows are resampled whole, with their weights.

    So a row of many instructions or tokens counts as often as it has some, and what belongs to one
    row is never taken for independent.
    """
    scores = np.asarray(values, dtype=np.float64)
    masses = np.asarray(weights, dtype=np.float64)
    mean = float((scores * masses).sum() / masses.sum())
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    for draw in range(num_resamples):
        rows = rng.integers(scores.size, size=scores.size)
        means[draw] = (scores[rows] * masses[rows]).sum() / masses[rows].sum()
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(mean, float(low), float(high), len(values), "bootstrap")
