"""The report of one model on benchmarks alone, as `swift eval` writes it."""

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from swiftcore.evaluation.benchmarks.planning import PlannedBenchmark
from swiftcore.evaluation.benchmarks.responding import Responder
from swiftcore.evaluation.benchmarks.running import question_digest, run_benchmarks
from swiftcore.evaluation.report import EvaluationReport, report_settings, summarize
from swiftcore.evaluation.samples import rows_digest
from swiftcore.progress import Progress
from swiftcore.recipe.sections import EvaluateSection


def evaluate_benchmarks(
    section: EvaluateSection,
    name: str,
    responder: Responder,
    benchmarks: Sequence[PlannedBenchmark],
    *,
    size_bytes: int = 0,
    progress: Progress,
) -> EvaluationReport:
    """Ask one model the questions of benchmarks and return the report, not yet written.

    Args:
        section: limits, sampling and the settings of the intervals.
        name: heads the model's column and names its files of samples.
        responder: the model.
        benchmarks: what is asked.
        size_bytes: size of its weights; 0 where that is not known.
        progress: told how far it is.
    """
    scores = run_benchmarks(benchmarks, responder, section, progress)
    result = summarize(scores.samples, scores.metrics, size_bytes, scores.seconds, scores.subsets)
    return EvaluationReport(
        num_rows=len(scores.samples),
        num_samples=len(scores.samples),
        test_digest=rows_digest([*map(question_digest, benchmarks)]),
        settings=report_settings(section),
        candidates={name: result},
        samples={name: scores.samples},
        benchmarks={found.name: found.as_dict() for found in benchmarks},
    )


def publish_report(report: EvaluationReport, folder: Path) -> None:
    """Write a report's files beside their folder, then move them there in one step."""
    hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        report.write(hidden)
        os.replace(hidden, folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
