"""The work of the template stage: a dataset folder becomes an encoded folder."""

import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swiftcore.data import Pool, SplitRows, has_split
from swiftcore.errors import DataError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import TemplateSection
from swiftcore.template.card import write_card
from swiftcore.template.custom import chosen_custom
from swiftcore.template.encoded_folder import EncodedWriter, TokenizedRow
from swiftcore.template.encoder import BATCH_ROWS, Drop, EncodeTask, RowEncoder, encode_task
from swiftcore.template.factory import get_template
from swiftcore.template.infer import infer_template
from swiftcore.template.parity import parity_report, require_parity
from swiftcore.template.settings import write_template_settings
from swiftcore.template.template import Template

# A process takes seconds to start and to load a tokenizer; 31 MB in two took longer than in one.
_BYTES_WORTH_PROCESSES = 64 * 2**20
_PARITY_ROWS = 64
_PERCENTILES = (0, 25, 50, 75, 90, 99, 100)


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
    untrained_answers: dict[str, int] = field(default_factory=dict)


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
        for fields in splits.values():
            if not fields["untrained_answers"]:  # only chat templates without registration have any
                del fields["untrained_answers"]
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
    tokenizer_dir: Path | None = None,
    pool: Pool | None = None,
    progress: Progress | None = None,
) -> EncodeReport:
    """Encode the train and val splits of a dataset folder.

    Writes train.parquet, val.parquet, drops.jsonl, parity.json, swift_template.json, report.json
    and card.html into `out_dir`. Equal input gives equal bytes, in any number of processes.

    Args:
        section: the recipe's template section.
        dataset_dir: the dataset folder.
        tokenizer: the model's tokenizer.
        out_dir: where to.
        method: pt takes rows as plain text.
        model_type: from the model's config.json, for a template that has to be inferred.
        max_model_length: the model's own limit.
        tokenizer_dir: folder of the tokenizer, for processes to load it; None: this process only.
        pool: where rows are encoded; default: this process.
        progress: hears how far it is.

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
            encoder = _SplitEncoder(
                template,
                dataset_dir,
                split,
                tokenizer_dir=tokenizer_dir,
                pool=pool or Pool(),
                progress=listener,
            )
            for drop in encoder.run(out_dir / f"{split}.parquet"):
                drops.write(json.dumps(drop, ensure_ascii=False) + "\n")
            reports[split] = encoder.report
            if split == "train":
                sample = encoder.rows.take(_spread(encoder.kept, _PARITY_ROWS))
                parity = parity_report(template, tokenizer, sample)
                require_parity(template, parity, section.parity_waivers)
    require_train_split(reports, dataset_dir)
    report = EncodeReport(template.settings, reports, parity)
    write_template_settings(out_dir, report.settings)
    _write_json(out_dir / "parity.json", parity)
    _write_json(out_dir / "report.json", report.as_dict())
    write_card(out_dir, template, SplitRows(dataset_dir, "train"))
    return report


def require_train_split(reports: Collection[str], dataset_dir: Path) -> None:
    """Refuse a dataset without training rows.

    Raises:
        DataError: `train` is none of the splits that were encoded.
    """
    if "train" not in reports:
        raise DataError(
            "the dataset has no training rows",
            where=dataset_dir,
            found="no train split",
            expected="train.parquet",
            do="check data.dataset",
        )


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
    name = (
        chosen_custom(section.template, section.custom_template)
        or section.template
        or fallback
        or infer_template(tokenizer, {"model_type": model_type})
    )
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
        enable_thinking=section.enable_thinking,
        preserve_thinking=section.preserve_thinking,
        add_non_thinking_prefix=section.add_non_thinking_prefix,
    )


class _SplitEncoder:
    """Encodes one split, here or in several processes, and keeps the counts."""

    def __init__(
        self,
        template: Template,
        dataset_dir: Path,
        split: str,
        *,
        tokenizer_dir: Path | None,
        pool: Pool,
        progress: Progress,
    ) -> None:
        self._template = template
        self._dataset_dir = dataset_dir
        self._split = split
        self._tokenizer_dir = tokenizer_dir
        self._pool = pool
        self._progress = progress
        self.rows = SplitRows(dataset_dir, split)
        self.report = SplitReport(rows=len(self.rows))
        self.kept = array("q")
        self._lengths = array("q")
        self._dropped: Counter[str] = Counter()

    def run(self, path: Path) -> Iterator[dict[str, Any]]:
        """Write the split and yield one record for each dropped row.

        Raises:
            DataError: no row is left.
        """
        with EncodedWriter(path) as writer:
            outcomes = self._in_blocks() if self._is_worth_processes() else self._here()
            for index, outcome in outcomes:
                if isinstance(outcome, Drop):
                    self._dropped[outcome.reason] += 1
                    yield {"split": self._split, "row": index, **outcome._asdict()}
                else:
                    writer.add(outcome)
                    self._lengths.append(len(outcome.input_ids))
                    self.report.label_tokens += outcome.num_labels
                    self.kept.append(index)
        self.report.kept = len(self._lengths)
        self.report.tokens = sum(self._lengths)
        self.report.length_percentiles = percentiles(self._lengths)
        self.report.drops = dict(sorted(self._dropped.items()))
        if not self._lengths:
            raise self._nothing_left()

    def _is_worth_processes(self) -> bool:
        several = self._pool.processes > 1 or self._pool.ray_address is not None
        return (
            several
            and self._tokenizer_dir is not None
            and self.rows.num_bytes > _BYTES_WORTH_PROCESSES
        )

    def _here(self) -> Iterator[tuple[int, TokenizedRow | Drop]]:
        pieces = self._template.pieces
        kept, parsed = pieces.num_kept_as_text, pieces.num_parsed_in_data
        before = self._template.untrained.copy()
        encoder = RowEncoder(self._template)
        for number, (index, outcome) in enumerate(
            encoder.encode(self.rows.batches(BATCH_ROWS), start=0), start=1
        ):
            if number % BATCH_ROWS == 0:
                self._tell(index + 1)
            yield index, outcome
        self._tell(len(self.rows))
        self.report.control_tokens_as_text = pieces.num_kept_as_text - kept
        self.report.control_tokens_parsed = pieces.num_parsed_in_data - parsed
        self._count_untrained(self._template.untrained - before)

    def _count_untrained(self, found: Counter[str]) -> None:
        counts = Counter(self.report.untrained_answers) + found
        self.report.untrained_answers = dict(sorted(counts.items()))

    def _in_blocks(self) -> Iterator[tuple[int, TokenizedRow | Drop]]:
        for block in self._pool.map(encode_task, self._tasks()):
            self.report.control_tokens_as_text += block.kept_as_text
            self.report.control_tokens_parsed += block.parsed_in_data
            self._count_untrained(block.untrained)
            yield from block.outcomes()
            self._tell(block.stop)

    def _tasks(self) -> list[EncodeTask]:
        assert self._tokenizer_dir is not None  # `_is_worth_processes` says so
        settings = json.dumps(self._template.settings)
        today = self._template.options.today.isoformat()
        tasks: list[EncodeTask] = []
        start = 0
        for group, size in enumerate(self.rows.group_sizes()):
            tasks.append(
                EncodeTask(
                    settings=settings,
                    today=today,
                    tokenizer_dir=self._tokenizer_dir,
                    dataset_dir=self._dataset_dir,
                    split=self._split,
                    row_group=group,
                    start=start,
                )
            )
            start += size
        return tasks

    def _tell(self, done: int) -> None:
        self._progress.update(done, len(self.rows), f"{self._split} rows encoded")

    def _nothing_left(self) -> DataError:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in self.report.drops.items())
        return DataError(
            f"no row of the {self._split} split is left after encoding",
            where=f"{self._split} split, {len(self.rows)} rows",
            found=reasons or "no rows",
            expected="at least one row with tokens that count in the loss",
            do="raise template.max_length, check template.loss_scale, or mend the rows "
            "(data quarantine and drops name them)",
        )


def _spread(places: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of the places, evenly spread."""
    step = max(len(places) // count, 1)
    return list(places[::step][:count])


def percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """Return the lengths that given shares of the rows do not exceed, by p0 to p100."""
    ordered = sorted(lengths)
    last = len(ordered) - 1
    return {f"p{share}": ordered[round(share / 100 * last)] for share in _PERCENTILES if ordered}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")
