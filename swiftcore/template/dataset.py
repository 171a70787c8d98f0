"""The work of the template stage: a dataset folder becomes an encoded folder."""

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swiftcore.data import SplitRows, has_split
from swiftcore.errors import DataError, RowTooLong, SwiftError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import TemplateSection
from swiftcore.template.card import write_card
from swiftcore.template.control_tokens import TokenRequest
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
_RowIds = list[list[int]] | SwiftError


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
    control_tokens_parsed: int = 0


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
        if not self.settings.get("allow_control_tokens"):
            for fields in splits.values():
                del fields["control_tokens_parsed"]
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
            rows = SplitRows(dataset_dir, split)
            encoder = _SplitEncoder(template, split, rows, listener)
            for drop in encoder.run(out_dir / f"{split}.parquet"):
                drops.write(json.dumps(drop, ensure_ascii=False) + "\n")
            reports[split] = encoder.report
            if split == "train":
                sample = rows.take(_spread(encoder.kept, _PARITY_ROWS))
                parity = parity_report(template, tokenizer, sample)
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
        allow_control_tokens=section.allow_control_tokens,
    )


@dataclass(slots=True)
class _Batch:
    """Consecutive rows on their way to tokens.

    Args:
        start: index of the first row.
        plans: pieces of each row, or why it has none.
        request: what the tokenizer was asked; None when the rows have to be asked for one by one.
    """

    start: int
    plans: list[list[Piece] | SwiftError]
    request: TokenRequest | None = None


class _SplitEncoder:
    """Encodes one split, batch by batch, and keeps the counts.

    Two threads take turns: while the tokenizer, which needs no Python, works on one batch, the next
    one is planned and the one before is put together.
    """

    def __init__(self, template: Template, split: str, rows: SplitRows, progress: Progress) -> None:
        self._template = template
        self._split = split
        self._rows = rows
        self._progress = progress
        self._dropped: Counter[str] = Counter()
        self.report = SplitReport(rows=len(rows))
        self.kept = array("q")

    def run(self, path: Path) -> Iterator[dict[str, Any]]:
        """Write the split and yield one record for each dropped row."""
        lengths = array("q")
        pieces = self._template.pieces
        found_before, parsed_before = pieces.num_kept_as_text, pieces.num_parsed_in_data
        with EncodedWriter(path) as writer:
            for batch, row_ids in self._tokenized_batches():
                for index, outcome in self._outcomes(batch, row_ids):
                    if isinstance(outcome, Encoded):
                        writer.add(outcome, index)
                        lengths.append(len(outcome.input_ids))
                        self.report.label_tokens += outcome.num_labels
                        self.kept.append(index)
                    else:
                        self._dropped[outcome["reason"]] += 1
                        yield {"split": self._split, "row": index, **outcome}
                done = batch.start + len(batch.plans)
                self._progress.update(done, len(self._rows), f"{self._split} rows encoded")
        self.report.kept = len(lengths)
        self.report.control_tokens_as_text = pieces.num_kept_as_text - found_before
        self.report.control_tokens_parsed = pieces.num_parsed_in_data - parsed_before
        self.report.tokens = sum(lengths)
        self.report.length_percentiles = _percentiles(lengths)
        self.report.drops = dict(sorted(self._dropped.items()))
        if not lengths:
            raise self._nothing_left()

    def _tokenized_batches(self) -> Iterator[tuple[_Batch, list[_RowIds]]]:
        """Yield each batch with the ids of its rows' pieces, or why they can't be had."""
        tokenize = self._template.pieces.tokenize
        with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as tokenizer:
            under_way: tuple[_Batch, Future[list[list[int]]]] | None = None
            for batch in self._planned_batches():
                texts = batch.request.texts if batch.request is not None else []
                following = tokenizer.submit(tokenize, texts)
                if under_way is not None:
                    yield under_way[0], self._completed(*under_way)
                under_way = batch, following
            if under_way is not None:
                yield under_way[0], self._completed(*under_way)

    def _planned_batches(self) -> Iterator[_Batch]:
        start = 0
        for rows in self._rows.batches(_BATCH_ROWS):
            plans = [self._plan(row) for row in rows]
            yield _Batch(start, plans, self._request(plans))
            start += len(rows)

    def _plan(self, row: Row) -> list[Piece] | SwiftError:
        try:
            return self._template.plan(row, "train")
        except DataError as err:
            return err

    def _request(self, plans: list[list[Piece] | SwiftError]) -> TokenRequest | None:
        pieces = [piece for plan in plans if isinstance(plan, list) for piece in plan]
        try:
            return self._template.pieces.request(pieces)
        except DataError:
            return None

    def _completed(self, batch: _Batch, encoded: Future[list[list[int]]]) -> list[_RowIds]:
        try:
            if batch.request is not None:
                found = self._template.pieces.complete(batch.request, encoded.result())
                ids = iter(found)
                return [
                    plan if isinstance(plan, SwiftError) else [next(ids) for _ in plan]
                    for plan in batch.plans
                ]
        except DataError:
            pass  # one row holds text that can't be encoded; it is found row by row
        return [self._tokenized_row(plan) for plan in batch.plans]

    def _tokenized_row(self, plan: list[Piece] | SwiftError) -> _RowIds:
        if isinstance(plan, SwiftError):
            return plan
        try:
            return self._template.pieces.encode(plan)
        except DataError as err:
            return err

    def _outcomes(
        self, batch: _Batch, row_ids: list[_RowIds]
    ) -> Iterator[tuple[int, Encoded | dict[str, Any]]]:
        for index, (plan, ids) in enumerate(zip(batch.plans, row_ids, strict=True), batch.start):
            if isinstance(ids, SwiftError):
                yield index, _drop(ids)
                continue
            try:
                assert isinstance(plan, list)  # a row without plan has no ids either
                parts = self._template.finish(plan, ids, "train")
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


def _spread(places: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of the places, evenly spread."""
    step = max(len(places) // count, 1)
    return list(places[::step][:count])


def _percentiles(lengths: Sequence[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    last = len(ordered) - 1
    return {f"p{share}": ordered[round(share / 100 * last)] for share in _PERCENTILES if ordered}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")
