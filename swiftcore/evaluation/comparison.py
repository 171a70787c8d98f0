"""Two evaluations question by question: paired differences with intervals.

Two models that answered the same questions are compared on each of them. That says far more than
two intervals side by side: questions that both find hard, or both find easy, cancel out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swiftcore.errors import DataError, UsageError

_Key = tuple[str | None, int, int]


@dataclass(frozen=True)
class Evaluated:
    """One candidate of a report: what it is called, and its samples as the files hold them."""

    label: str
    samples: dict[_Key, dict[str, Any]]
    benchmarks: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class PairedDifference:
    """One metric on the questions that both answered: second minus first.

    `low` and `high` are the paired bootstrap interval. For metrics of 0 and 1, `gained` and `lost`
    count the questions that only the second, or only the first, got right, and `p_value` is that of
    McNemar's exact test; None for other metrics.
    """

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    n: int
    gained: int | None = None
    lost: int | None = None
    p_value: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def read_evaluated(folder: Path, candidate: str | None = None) -> Evaluated:
    """Read one candidate's samples from a report folder.

    Args:
        folder: holds report.json and samples/.
        candidate: its name in the report; may be left out where there is only one.

    Raises:
        DataError: the folder is no report, or its files can't be read.
        UsageError: there are several candidates, or none of that name.
    """
    try:
        document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        names = list(document["candidates"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise DataError(
            "There is no evaluation report.",
            where=folder / "report.json",
            found=f"{type(err).__name__}: {err}",
            expected="the folder that swift eval or the evaluate stage wrote",
        ) from err
    if candidate is None and len(names) == 1:
        candidate = names[0]
    if candidate is None or candidate not in names:
        raise UsageError(
            "It must be said which candidate of a report is meant.",
            where=folder,
            found=candidate or "none",
            expected=" or ".join(names),
            do=f"write {folder}#{names[-1]}",
        )
    benchmarks = document.get("benchmarks") or {}
    samples: dict[_Key, dict[str, Any]] = {}
    for benchmark in (None, *benchmarks):
        path = folder / "samples" / (benchmark or "") / f"{candidate}.jsonl"
        if path.is_file():
            samples |= _samples(path, benchmark)
    label = candidate if len(names) == 1 else f"{folder.name}#{candidate}"
    return Evaluated(label, samples, benchmarks)


def _samples(path: Path, benchmark: str | None) -> dict[_Key, dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
        return {(benchmark, line["row"], line["step"]): line for line in lines}
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(
            "The samples of a report can't be read.",
            where=path,
            found=f"{type(err).__name__}: {err}",
            do="evaluate again",
        ) from err


def compare(
    first: Evaluated,
    second: Evaluated,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 42,
) -> list[PairedDifference]:
    """Compare two candidates on the questions that both were asked.

    Raises:
        DataError: they have no question in common.
    """
    common = [key for key, sample in first.samples.items() if _same_question(first, second, key)]
    values: dict[str, list[tuple[float, float, float]]] = {}
    for key in common:
        mine, theirs = first.samples[key], second.samples[key]
        for name in mine["metrics"].keys() & theirs["metrics"].keys():
            metric = name if key[0] is None else f"{key[0]}/{name}"
            weight = float((mine.get("weights") or {}).get(name, 1.0))
            triple = (float(mine["metrics"][name]), float(theirs["metrics"][name]), weight)
            values.setdefault(metric, []).append(triple)
    if not values:
        raise DataError(
            "The two evaluations have no question in common.",
            where=f"{first.label} and {second.label}",
            found=f"{len(first.samples)} and {len(second.samples)} questions",
            expected="the same rows or benchmarks, with the same settings",
            do="evaluate both with the same recipe section or flags",
        )
    return [
        _paired(metric, np.asarray(values[metric]), confidence, num_resamples, seed)
        for metric in sorted(values)
    ]


def _same_question(first: Evaluated, second: Evaluated, key: _Key) -> bool:
    other = second.samples.get(key)
    if other is None or other["target"] != first.samples[key]["target"]:
        return False
    if key[0] is None:
        return True
    digests = [found.benchmarks[key[0]].get("digest") for found in (first, second)]
    return digests[0] == digests[1]


def _paired(
    metric: str, triples_N3: np.ndarray, confidence: float, num_resamples: int, seed: int
) -> PairedDifference:
    """Return the difference of one metric; triples are (first, second, weight) of N questions."""
    before, after, weights = triples_N3.T
    total = weights.sum()
    differences = (after - before) * weights
    rng = np.random.default_rng(seed)
    count = len(triples_N3)
    drawn = np.empty(num_resamples)
    for place in range(num_resamples):
        rows = rng.integers(count, size=count)
        drawn[place] = differences[rows].sum() / weights[rows].sum()
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    gained = lost = p_value = None
    if np.isin(triples_N3[:, :2], (0.0, 1.0)).all():
        gained, lost = int((after > before).sum()), int((after < before).sum())
        p_value = mcnemar(gained, lost)
    return PairedDifference(
        metric=metric,
        first=float((before * weights).sum() / total),
        second=float((after * weights).sum() / total),
        difference=float(differences.sum() / total),
        low=float(low),
        high=float(high),
        n=count,
        gained=gained,
        lost=lost,
        p_value=p_value,
    )


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided exact p-value of McNemar's test.

    Of the questions that one of two models alone gets right, each is as likely to be the one's as
    the other's when the models are equally good.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions
    or percentages", 1947; the exact form is the sign test.
    """
    trials = gained + lost
    tail = sum(math.comb(trials, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**trials)


def table_rows(differences: Sequence[PairedDifference]) -> list[list[str]]:
    """Return the cells of a table: metric, first, second, difference, interval, n, p."""
    return [
        [
            found.metric,
            f"{found.first:.4f}",
            f"{found.second:.4f}",
            f"{found.difference:+.4f}",
            f"{found.low:+.4f} to {found.high:+.4f}",
            str(found.n),
            "" if found.p_value is None else f"{found.p_value:.3g} (+{found.gained} -{found.lost})",
        ]
        for found in differences
    ]
