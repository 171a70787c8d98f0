"""What padding costs: the same rows padded, grouped by length, side by side, and packed.

    python bench/packing.py [--rounds 3] [--rows 96] [--model small|wide] [--threads 1]

Every variant trains LoRA on all rows once a round, forward and backward as in the train stage, in
one process and in turns. The figure is CPU seconds for 1,000 tokens of rows; padding does not count
as tokens. Ratios are to the padded batches of the same round, medians over the rounds. "block mask"
lays the rows out as padding-free does and lets transformers find them by position ids, which makes
a mask of all tokens by all tokens. A second table plans the packing of a million rows.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).parent.parent
sys.path.insert(0, str(REPO))

import torch  # noqa: E402

from swiftcore.models import build_scratch, load_model  # noqa: E402 - after the path is set
from swiftcore.recipe import ScratchModel, TunerSection  # noqa: E402
from swiftcore.training.batches import (  # noqa: E402
    Collator,
    PackedOrder,
    RowOrder,
    SideBySide,
)
from swiftcore.training.loss import install_label_loss  # noqa: E402
from swiftcore.training.packing import plan_packing  # noqa: E402
from swiftcore.training.row_attention import attend_by_row  # noqa: E402
from swiftcore.tuners import prepare_model  # noqa: E402

SHAPES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6},
    "wide": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 4},
}
BATCH_ROWS, LONGEST, PACKED_LENGTH = 8, 512, 2048
FIELDS = ("input_ids", "labels", "loss_weights", "row_lengths")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--model", choices=SHAPES, default="small")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        plain = _model(Path(folder), options.model)
    _training_table(plain, _rows(options.rows), options.rounds)
    _planning_table()


def _model(folder: Path, shape: str) -> Any:
    scratch = ScratchModel(**SHAPES[shape], vocab_size=320, max_position_embeddings=PACKED_LENGTH)
    model = load_model(build_scratch(scratch, folder, texts=["the quick brown fox"] * 9))
    return prepare_model(model, TunerSection(lora_dropout=0.0))


def _rows(count: int) -> list[dict[str, Any]]:
    """Rows as long as chat rows are: log-normal, half of the tokens carry loss."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.empty(count).log_normal_(5.2, 0.6, generator=generator)
    rows = []
    for number, length in enumerate(lengths.long().clamp(16, LONGEST).tolist()):
        ids = torch.randint(256, (length,), generator=generator).tolist()
        labels = [-100] * (length // 2) + ids[length // 2 :]
        rows.append({"input_ids": ids, "labels": labels, "loss_scale": None, "row": number})
    return rows


def _training_table(plain: Any, rows: list[dict[str, Any]], rounds: int) -> None:
    by_row, by_mask = copy.deepcopy(plain), plain
    attend_by_row(by_row)
    for model in (by_row, by_mask):
        install_label_loss(model)
        model.train()
    lengths = [len(row["input_ids"]) for row in rows]
    shuffled = list(RowOrder(lengths, seed=0, shuffle=True, group_rows=None))
    grouped = list(RowOrder(lengths, seed=0, shuffle=True, group_rows=BATCH_ROWS))
    packed = list(PackedOrder(lengths, PACKED_LENGTH, "binpack", seed=0, shuffle=True))
    variants = {
        "padded": (by_row, _batches(rows, shuffled, Collator(0))),
        "padded, grouped by length": (by_row, _batches(rows, grouped, Collator(0))),
        "padding-free": (by_row, _batches(rows, shuffled, SideBySide())),
        "padding-free, block mask": (by_mask, _batches(rows, shuffled, SideBySide())),
        "packed": (by_row, [SideBySide()([[rows[n] for n in numbers]]) for numbers in packed]),
    }
    costs: dict[str, list[float]] = {name: [] for name in variants}
    loss: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, (model, batches) in variants.items():
            seconds, loss[name] = _pass(model, batches)
            if number:  # the first one warms up
                costs[name].append(1000 * seconds / sum(lengths))
    print(f"{len(rows)} rows, {sum(lengths):,} tokens, {rounds} rounds\n")
    print("| batches | forwards | positions a token | CPU s / 1k tokens | ratio | loss |")
    print("|---|---|---|---|---|---|")
    for name, (_, batches) in variants.items():
        ratio = statistics.median(
            own / padded for own, padded in zip(costs[name], costs["padded"], strict=True)
        )
        positions = sum(batch["input_ids"].numel() for batch in batches) / sum(lengths)
        print(
            f"| {name} | {len(batches)} | {positions:.2f} "
            f"| {statistics.median(costs[name]):.3f} | {ratio:.2f} | {loss[name]:.4f} |"
        )


def _batches(rows: list[dict[str, Any]], order: list[int], collate: Any) -> list[Any]:
    starts = range(0, len(order), BATCH_ROWS)
    return [collate([rows[n] for n in order[start : start + BATCH_ROWS]]) for start in starts]


def _pass(model: Any, batches: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the CPU seconds of one pass over all rows, and the loss a label."""
    total, labels = 0.0, 0
    began = time.process_time()
    for batch in batches:
        fields = {name: batch[name] for name in FIELDS if name in batch}
        loss = model(**fields)["loss"]
        loss.backward()
        total += loss.item()
        labels += int((batch["labels"][:, 1:] != -100).sum())
    seconds = time.process_time() - began
    model.zero_grad()
    return seconds, total / labels


def _planning_table() -> None:
    lengths = torch.empty(1_000_000).log_normal_(5.5, 0.8, generator=torch.Generator())
    sizes = lengths.long().clamp(1, 4096).tolist()
    print("\n| a million rows | sequences of 4,096 | full | CPU s |")
    print("|---|---|---|---|")
    for strategy in ("binpack", "sequential"):
        began = time.process_time()
        packing = plan_packing(sizes, 4096, strategy=strategy)
        seconds = time.process_time() - began
        print(f"| {strategy} | {packing.num_bins:,} | {packing.efficiency:.2%} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
