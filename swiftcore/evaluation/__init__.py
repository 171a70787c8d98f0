"""Scores of answered rows: agent and text metrics, intervals, reports, contamination, the gate.

`agent` and `swiftcore.scores` hold the metric definitions, `intervals` the confidence intervals,
`samples` turns rows into single steps, `native` answers them with an engine and writes the report,
`gate` decides from a report whether a model may be promoted.
"""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names
from swiftcore.scores.text import exact_match, final_number, numbers_agree, rouge_l

if TYPE_CHECKING:
    from swiftcore.evaluation.agent import agent_step_metrics, react_from_hermes
    from swiftcore.evaluation.gate import Check, Decision, champion_summary, decide
    from swiftcore.evaluation.intervals import bootstrap_interval, estimate, wilson_interval
    from swiftcore.evaluation.native import Candidate, evaluate_candidates
    from swiftcore.evaluation.overlap import ContaminationReport, contamination
    from swiftcore.evaluation.report import EvaluationReport
    from swiftcore.evaluation.samples import Sample, samples_of_rows


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

__getattr__ = late_names(
    __name__,
    {
        "agent": ("agent_step_metrics", "react_from_hermes"),
        "overlap": ("ContaminationReport", "contamination"),
        "gate": ("Check", "Decision", "champion_summary", "decide"),
        "intervals": ("bootstrap_interval", "estimate", "wilson_interval"),
        "native": ("Candidate", "evaluate_candidates"),
        "report": ("EvaluationReport",),
        "samples": ("Sample", "samples_of_rows"),
    },
)
