"""The work of the template stage for a task: a dataset folder becomes an encoded folder."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftcore.data import SplitRows, has_split
from swiftcore.errors import DataError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import TemplateSection
from swiftcore.recipe.tasks import Task
from swiftcore.template.dataset import (
    EncodeReport,
    SplitReport,
    percentiles,
    require_train_split,
    resolve_template,
)
from swiftcore.template.encoder import BATCH_ROWS, Drop
from swiftcore.template.settings import write_template_settings
from swiftcore.template.tasks.encoder import SampleEncoder
from swiftcore.template.tasks.folder import SampleWriter
from swiftcore.template.template import Template

_NOT_COMPARED = {"text": "not compared: the texts of this task are scored, not answered"}


def encode_samples(
    section: TemplateSection,
    task: Task,
    dataset_dir: Path,
    tokenizer: Any,
    out_dir: Path,
    *,
    model_type: str | None,
    max_model_length: int | None,
    progress: Progress | None = None,
) -> EncodeReport:
    """Encode the training and validation rows of a dataset folder for a task.

    Writes for each split a parquet file (`folder` says its columns), and drops.jsonl, parity.json,
    report.json and swift_template.json as for any other task.

    Raises:
        DataError: there are no training rows, or none is left of a split.
        UsageError: the template is unknown, can't be inferred or does not fit the tokenizer.
    """
    template = resolve_template(
        section, tokenizer, method="sft", model_type=model_type, max_model_length=max_model_length
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    reports: dict[str, SplitReport] = {}
    with (out_dir / "drops.jsonl").open("w", encoding="utf-8", newline="\n") as drops:
        for split in ("train", "val"):
            if not has_split(dataset_dir, split):
                continue
            rows = SplitRows(dataset_dir, split)
            reports[split] = SplitReport(rows=len(rows))
            path = out_dir / f"{split}.parquet"
            for drop in _encode_split(template, task, rows, path, reports[split]):
                drops.write(json.dumps({"split": split, **drop}, ensure_ascii=False) + "\n")
            (progress or Silent()).update(len(rows), len(rows), f"{split} rows encoded")
            if not reports[split].kept:
                raise _nothing_left(split, reports[split])
    require_train_split(reports, dataset_dir)
    report = EncodeReport(template.settings, reports, {"has_template": False, **_NOT_COMPARED})
    write_template_settings(out_dir, report.settings)
    for name, value in (("parity", report.parity), ("report", report.as_dict())):
        text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        (out_dir / f"{name}.json").write_text(text, encoding="utf-8")
    return report


def _encode_split(
    template: Template, task: Task, rows: SplitRows, path: Path, report: SplitReport
) -> Iterator[dict[str, Any]]:
    """Write a split, fill its report, and yield one record for each dropped row."""
    kept_as_text = template.pieces.num_kept_as_text
    lengths: list[int] = []
    dropped: Counter[str] = Counter()
    with SampleWriter(path) as writer:
        for index, outcome in SampleEncoder(template, task).encode(rows.batches(BATCH_ROWS)):
            if isinstance(outcome, Drop):
                dropped[outcome.reason] += 1
                yield {"row": index, **outcome._asdict()}
                continue
            writer.add(outcome)
            lengths.append(outcome.num_tokens)
            report.label_tokens += len(outcome.targets)
    report.kept = len(lengths)
    report.tokens = sum(lengths)
    report.length_percentiles = percentiles(lengths)
    report.drops = dict(sorted(dropped.items()))
    report.control_tokens_as_text = template.pieces.num_kept_as_text - kept_as_text


def _nothing_left(split: str, report: SplitReport) -> DataError:
    reasons = "; ".join(f"{count} x {reason}" for reason, count in report.drops.items())
    return DataError(
        f"no row of the {split} split is left after encoding",
        where=f"{split} split, {report.rows} rows",
        found=reasons or "no rows",
        expected="at least one row with the texts and labels of its task",
        do="mend the rows (drops.jsonl names them), or change model.task_type",
    )
