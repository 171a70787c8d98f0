"""The work of the template stage: a dataset folder becomes an encoded folder."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swiftcore.data import has_split, load_rows
from swiftcore.errors import DataError, RowTooLong, SwiftError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import TemplateSection
from swiftcore.template.card import write_card
from swiftcore.template.encoded_folder import EncodedWriter, load_encoded
from swiftcore.template.encoding import Encoded
from swiftcore.template.factory import get_template
from swiftcore.template.infer import infer_template
from swiftcore.template.parity import parity_report
from swiftcore.template.settings import write_template_settings
from swiftcore.template.spans import Piece
from swiftcore.template.template import Template

_BATCH_ROWS = 256
_PARITY_ROWS = 64
_PERCENTILES = (0, 25, 50, 75, 90, 99, 100)
_NO_LABEL = "no token counts in the loss"

Row = dict[str, Any]


@dataclass(slots=True)
class SplitReport:
    """What became of one split."""

    rows: int = 0
    kept: int = 0
    tokens: int = 0
    label_tokens: int = 0
    length_percentiles: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    control_tokens_as_text: int = 0


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What the template stage did.

    Args:
        settings: the resolved template settings, as in swift_template.json.
        splits: one report a split.
        parity: see `parity_report`.
    """

    settings: dict[str, Any]
    splits: dict[str, SplitReport]
    parity: dict[str, Any]

    @property
    def control_tokens_as_text(self) -> int:
        """Control tokens found in the data, all kept as plain text."""
        return sum(report.control_tokens_as_text for report in self.splits.values())

    def metrics(self) -> dict[str, float]:
        """Return the figures worth tracking."""
        figures: dict[str, float] = {"control_tokens_as_text": self.control_tokens_as_text}
        for split, report in self.splits.items():
            figures |= {
                f"{split}_rows": report.kept,
                f"{split}_dropped": report.rows - report.kept,
                f"{split}_tokens": report.tokens,
                f"{split}_label_tokens": report.label_tokens,
            }
        for kind in ("prompt", "conversation"):
            if kind in self.parity:
                figures[f"parity_{kind}_compared"] = self.parity[kind]["compared"]
                figures[f"parity_{kind}_differing"] = self.parity[kind]["differing"]
        return figures

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready fields."""
        splits = {
            name: {key: getattr(report, key) for key in SplitReport.__slots__}
            for name, report in self.splits.items()
        }
        return {
            "settings": self.settings,
            "splits": splits,
            "control_tokens_as_text": self.control_tokens_as_text,
        }


def encode_dataset(
    section: TemplateSection,
    dataset_dir: Path,
    tokenizer: Any,
    out_dir: Path,
    *,
    method: Literal["pt", "sft"],
    model_type: str | None,
    max_model_length: int | None,
    progress: Progress | None = None,
) -> EncodeReport:
    """Encode the train and val splits of a dataset folder.

    Writes train.parquet, val.parquet, drops.jsonl, parity.json, swift_template.json, report.json
    and card.html into `out_dir`. Equal input gives equal bytes.

    Raises:
        DataError: no row of a split is left.
        UsageError: the template is unknown, can't be inferred or does not fit the tokenizer.
    """
    template = resolve_template(
        section, tokenizer, method=method, model_type=model_type, max_model_length=max_model_length
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    listener = progress or Silent()
    reports: dict[str, SplitReport] = {}
    parity: dict[str, Any] = {}
    with (out_dir / "drops.jsonl").open("w", encoding="utf-8", newline="\n") as drops:
        for split in ("train", "val"):
            if not has_split(dataset_dir, split):
                continue
            rows = load_rows(dataset_dir, split)
            writer = _SplitEncoder(template, split, rows, listener)
            for drop in writer.run(out_dir / f"{split}.parquet"):
                drops.write(json.dumps(drop, ensure_ascii=False) + "\n")
            reports[split] = writer.report
            if split == "train":
                parity = parity_report(template, tokenizer, _sample(rows, writer.kept))
    if "train" not in reports:
        raise DataError(
            "the dataset has no training rows",
            where=dataset_dir,
            found="no train split",
            expected="train.parquet",
            do="check data.dataset",
        )
    report = EncodeReport(template.settings, reports, parity)
    write_template_settings(out_dir, report.settings)
    _write_json(out_dir / "parity.json", parity)
    _write_json(out_dir / "report.json", report.as_dict())
    write_card(out_dir / "card.html", template, load_encoded(out_dir, "train"), report.as_dict())
    return report


def resolve_template(
    section: TemplateSection,
    tokenizer: Any,
    *,
    method: Literal["pt", "sft"],
    model_type: str | None,
    max_model_length: int | None,
) -> Template:
    """Build the template a recipe means: its name inferred, its length limited by the model's.

    Raises:
        UsageError: the template is unknown, can't be inferred or does not fit the tokenizer.
    """
    plain = method == "pt" or not section.use_chat_template
    # Plain text has no family; the name only says where generation settings come from.
    fallback = "default" if plain else None
    name = section.template or fallback or infer_template(tokenizer, {"model_type": model_type})
    limits = [limit for limit in (section.max_length, max_model_length) if limit is not None]
    everything_counts = method == "pt" and section.loss_scale == "default"
    return get_template(
        name,
        tokenizer,
        agent_template=section.agent_template,
        loss_scale="all" if everything_counts else section.loss_scale,
        max_length=min(limits, default=None),
        truncation_strategy=section.truncation_strategy,
        default_system=section.system,
        use_chat_template=not plain,
    )


class _SplitEncoder:
    """Encodes one split, batch by batch, and keeps the counts."""

    def __init__(self, template: Template, split: str, rows: list[Row], progress: Progress) -> None:
        self._template = template
        self._split = split
        self._rows = rows
        self._progress = progress
        self.report = SplitReport(rows=len(rows))
        self.kept: list[int] = []

    def run(self, path: Path) -> Iterator[dict[str, Any]]:
        """Write the split and yield one record for each dropped row."""
        lengths: list[int] = []
        dropped: Counter[str] = Counter()
        found_before = self._template.pieces.num_kept_as_text
        with EncodedWriter(path) as writer:
            for start in range(0, len(self._rows), _BATCH_ROWS):
                for index, outcome in self._encode_batch(start):
                    if isinstance(outcome, Encoded):
                        writer.add(outcome, index)
                        lengths.append(len(outcome.input_ids))
                        self.report.label_tokens += outcome.num_labels
                        self.kept.append(index)
                    else:
                        dropped[outcome["reason"]] += 1
                        yield {"split": self._split, "row": index, **outcome}
                done = min(start + _BATCH_ROWS, len(self._rows))
                self._progress.update(done, len(self._rows), f"{self._split} rows encoded")
        self.report.kept = len(lengths)
        found = self._template.pieces.num_kept_as_text
        self.report.control_tokens_as_text = found - found_before
        self.report.tokens = sum(lengths)
        self.report.length_percentiles = _percentiles(lengths)
        self.report.drops = dict(sorted(dropped.items()))
        if not lengths:
            raise self._nothing_left()

    def _encode_batch(self, start: int) -> Iterator[tuple[int, Encoded | dict[str, Any]]]:
        template = self._template
        planned: list[tuple[int, list[Piece] | SwiftError]] = []
        for index in range(start, min(start + _BATCH_ROWS, len(self._rows))):
            try:
                planned.append((index, template.plan(self._rows[index], "train")))
            except DataError as err:
                planned.append((index, err))
        found_before = template.pieces.num_kept_as_text
        pieces = [piece for _, plan in planned if isinstance(plan, list) for piece in plan]
        try:
            encoded = iter(template.pieces.encode(pieces))
        except DataError:
            # One row holds text that can't be encoded; find it row by row.
            encoded = None
            template.pieces.num_kept_as_text = found_before
        for index, plan in planned:
            if isinstance(plan, SwiftError):
                yield index, _drop(plan)
                continue
            try:
                ids = (
                    template.pieces.encode(plan)
                    if encoded is None
                    else [next(encoded) for _ in plan]
                )
                parts = template.finish(plan, ids, "train")
            except DataError as err:
                yield index, _drop(err)
                continue
            for part in parts:
                yield index, part if part.num_labels else _unlabelled(part)

    def _nothing_left(self) -> DataError:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in self.report.drops.items())
        return DataError(
            f"no row of the {self._split} split is left after encoding",
            where=f"{self._split} split, {len(self._rows)} rows",
            found=reasons or "no rows",
            expected="at least one row with tokens that count in the loss",
            do="raise template.max_length, check template.loss_scale, or mend the rows "
            "(data quarantine and drops name them)",
        )


def _drop(err: SwiftError) -> dict[str, Any]:
    reason = "longer than max_length" if isinstance(err, RowTooLong) else err.message
    tokens = int(str(err.found).split()[0]) if isinstance(err, RowTooLong) else None
    return {"reason": reason, "tokens": tokens, "where": err.where, "found": err.found}


def _unlabelled(encoded: Encoded) -> dict[str, Any]:
    tokens = len(encoded.input_ids)
    return {"reason": _NO_LABEL, "tokens": tokens, "where": "labels", "found": f"{tokens} tokens"}


def _sample(rows: list[Row], kept: list[int]) -> list[Row]:
    step = max(len(kept) // _PARITY_ROWS, 1)
    return [rows[index] for index in kept[::step][:_PARITY_ROWS]]


def _percentiles(lengths: list[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    last = len(ordered) - 1
    return {f"p{share}": ordered[round(share / 100 * last)] for share in _PERCENTILES if ordered}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")
