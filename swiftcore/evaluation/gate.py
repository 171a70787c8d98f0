"""The gate: from a report to yes or no, with every condition and what was found.

It reads plain dictionaries, as report.json holds them, so a report from another machine or from
months ago can be judged. What is missing or not finite never passes.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from swiftcore.errors import GateRefused
from swiftcore.evaluation.report import LOWER_IS_BETTER
from swiftcore.recipe.sections import Gate


@dataclass(frozen=True)
class Check:
    """One condition: what was found, what was asked for, and whether it holds."""

    name: str
    found: str
    expected: str
    passed: bool


@dataclass(frozen=True)
class Decision:
    """The verdict on one candidate and all its checks."""

    served: str
    passed: bool
    reasons: list[Check]

    def raise_if_refused(self) -> None:
        """Do nothing for a candidate that passed.

        Raises:
            GateRefused: one or more checks failed; the block lists them.
        """
        if self.passed:
            return
        failed = [check for check in self.reasons if not check.passed]
        raise GateRefused(
            f"candidate {self.served!r} is not promoted: {len(failed)} of {len(self.reasons)} "
            "conditions do not hold",
            where="deploy.gate",
            found="\n".join(f"{check.name}: {check.found}" for check in failed),
            expected="\n".join(f"{check.name}: {check.expected}" for check in failed),
            do="read report.html for the failures; mend data or training, or change deploy.gate",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as JSON-ready fields, for tags and the journal."""
        return asdict(self)


def champion_summary(report: Mapping[str, Any], served: str, name: str) -> dict[str, Any]:
    """Return what `decide` needs to know of a promoted model: its name, test set and metrics."""
    candidate = report["candidates"][served]
    return {
        "name": name,
        "test_digest": report["test_digest"],
        "metrics": {metric: found["value"] for metric, found in candidate["metrics"].items()},
    }


def decide(
    report: Mapping[str, Any],
    gate: Gate,
    served: str,
    champion: Mapping[str, Any] | None = None,
    recovery_of: str | None = None,
) -> Decision:
    """Judge the candidate that is to be served.

    Args:
        report: content of report.json.
        gate: the conditions.
        served: name of the candidate.
        champion: `champion_summary` of the model in service, if there is one. It is compared only
            when it was measured on the same test rows; otherwise a check says that it was not.
        recovery_of: candidate whose value the served one must keep, as `gate.min_recovery` says
            (the merged model, for a quantized one).

    For a metric where lower is better, 1 - value takes the value's place everywhere.
    """
    value = _goodness(report, served, gate.metric)
    checks = [_value_check(gate, value), _coverage_check(report, gate, served)]
    checks.append(_contamination_check(report))
    if recovery_of is not None and recovery_of != served:
        checks.append(_recovery_check(report, gate, value, recovery_of))
    if champion is not None:
        checks.append(_champion_check(report, gate, value, champion))
    return Decision(served, all(check.passed for check in checks), checks)


def _goodness(report: Mapping[str, Any], candidate: str, metric: str) -> float:
    entry = _candidate(report, candidate).get("metrics", {}).get(metric)
    return _turned(metric, entry.get("value") if isinstance(entry, Mapping) else None)


def _turned(metric: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return 1 - value if metric in LOWER_IS_BETTER else float(value)


def _candidate(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return (report.get("candidates") or {}).get(name) or {}


def _label(metric: str) -> str:
    return f"1 - {metric}" if metric in LOWER_IS_BETTER else metric


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "missing or not finite"


def _value_check(gate: Gate, value: float) -> Check:
    return Check(
        _label(gate.metric), _number(value), f"at least {gate.min_value}", value >= gate.min_value
    )


def _coverage_check(report: Mapping[str, Any], gate: Gate, served: str) -> Check:
    coverage = _turned("coverage", _candidate(report, served).get("coverage"))
    return Check(
        "coverage",
        _number(coverage),
        f"at least {gate.min_coverage} of the steps answered",
        coverage >= gate.min_coverage,
    )


def _contamination_check(report: Mapping[str, Any]) -> Check:
    found = report.get("contamination")
    if not isinstance(found, Mapping):
        return Check("contamination", "not checked", "test rows compared with training rows", False)
    overlapping = found.get("exact", 0) + found.get("normalized", 0)
    return Check(
        "contamination",
        f"{overlapping} of {found.get('num_test')} test prompts occur in training",
        "0",
        overlapping == 0,
    )


def _recovery_check(report: Mapping[str, Any], gate: Gate, value: float, recovery_of: str) -> Check:
    whole = _goodness(report, recovery_of, gate.metric)
    return Check(
        f"recovery of {recovery_of}",
        f"{_number(value)} of {_number(whole)}",
        f"at least {gate.min_recovery} of it",
        value >= gate.min_recovery * whole,
    )


def _champion_check(
    report: Mapping[str, Any], gate: Gate, value: float, champion: Mapping[str, Any]
) -> Check:
    name = f"champion {champion.get('name', '')}".strip()
    allowed = f"at most {gate.max_drop_from_champion} below the champion"
    if champion.get("test_digest") != report.get("test_digest"):
        return Check(name, "not compared: it was measured on other test rows", allowed, True)
    theirs = _turned(gate.metric, (champion.get("metrics") or {}).get(gate.metric))
    if math.isnan(theirs):
        return Check(name, f"not compared: it has no {gate.metric}", allowed, True)
    # The subtraction of two decimal fractions is a little off; 1e-9 is far below one row's weight.
    holds = value >= theirs - gate.max_drop_from_champion - 1e-9
    return Check(name, f"{_number(value)} against {_number(theirs)}", allowed, holds)
