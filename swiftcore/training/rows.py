"""Encoded rows as the template stage wrote them, read without importing torch."""

from pathlib import Path
from typing import Any

from swiftcore.errors import DataError
from swiftcore.template import EncodedRows, load_encoded

IGNORED = -100

Row = dict[str, Any]


def read_rows(folder: Path, split: str) -> EncodedRows | None:
    """Return the encoded rows of a split, or None where there is no such split."""
    return load_encoded(folder, split) if (folder / f"{split}.parquet").is_file() else None


def require_labels(rows: EncodedRows | None, split: str, folder: Path) -> EncodedRows:
    """Return the rows of a split that can teach something.

    Raises:
        DataError: it has no rows, or none of its tokens carries loss.
    """
    if not rows:
        raise DataError(
            f"there are no rows to train on: the {split} split is empty",
            where=folder,
            do="look at drops.jsonl there for the reason each row was dropped",
        )
    if not any(label != IGNORED for row in rows for label in row["labels"][1:]):
        raise DataError(
            f"no token of the {len(rows)} rows in the {split} split carries loss",
            where=folder,
            found="labels that are all -100",
            expected="assistant text that template.loss_scale gives a weight",
            do="check template.loss_scale and that rows end with an assistant message; "
            "card.html there shows what is masked",
        )
    return rows
