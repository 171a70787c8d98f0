"""Scores of answered rows: agent and text metrics, intervals, reports, contamination, the gate.

`agent` and `text` hold the metric definitions, `intervals` the confidence intervals, `samples`
turns rows into single steps, `native` answers them with an engine and writes the report, `gate`
decides from a report whether a model may be promoted.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swiftcore.evaluation.agent import agent_step_metrics, react_from_hermes
    from swiftcore.evaluation.gate import Check, Decision, champion_summary, decide
    from swiftcore.evaluation.intervals import bootstrap_interval, estimate, wilson_interval
    from swiftcore.evaluation.native import Candidate, evaluate_candidates
    from swiftcore.evaluation.overlap import ContaminationReport, contamination
    from swiftcore.evaluation.report import EvaluationReport
    from swiftcore.evaluation.samples import Sample, samples_of_rows
    from swiftcore.evaluation.text import exact_match, final_number, numbers_agree, rouge_l

_ORIGIN = {
    "agent_step_metrics": "agent",
    "react_from_hermes": "agent",
    "ContaminationReport": "overlap",
    "contamination": "overlap",
    "Check": "gate",
    "Decision": "gate",
    "champion_summary": "gate",
    "decide": "gate",
    "bootstrap_interval": "intervals",
    "estimate": "intervals",
    "wilson_interval": "intervals",
    "Candidate": "native",
    "evaluate_candidates": "native",
    "EvaluationReport": "report",
    "Sample": "samples",
    "samples_of_rows": "samples",
    "exact_match": "text",
    "final_number": "text",
    "numbers_agree": "text",
    "rouge_l": "text",
}

__all__ = [
    "Candidate",
    "Check",
    "ContaminationReport",
    "Decision",
    "EvaluationReport",
    "Sample",
    "agent_step_metrics",
    "bootstrap_interval",
    "champion_summary",
    "contamination",
    "decide",
    "estimate",
    "evaluate_candidates",
    "exact_match",
    "final_number",
    "numbers_agree",
    "react_from_hermes",
    "rouge_l",
    "samples_of_rows",
    "wilson_interval",
]


def __getattr__(name: str) -> Any:
    if name not in _ORIGIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ORIGIN[name]}"), name)
