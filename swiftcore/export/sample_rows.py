"""Which encoded rows a quantization learns from, and which it is measured on."""

from collections.abc import Mapping, Sequence
from typing import Any

from swiftcore.errors import DataError, UsageError

_IGNORED = -100
# A layer's statistics from fewer tokens say little; GPTQ's own paper takes 128 rows of 2048.
_LEAST_TOKENS = 256


def labelled_rows(rows: Sequence[Mapping[str, Any]], limit: int) -> list[Mapping[str, Any]]:
    """Return the first rows that have a label to predict.

    Raises:
        UsageError: there is none.
    """
    found = [row for row in rows if num_labels(row)][:limit]
    if not found:
        raise UsageError(
            "the recovery can't be measured: no sample row has a label",
            where="quantize",
            found=f"{len(rows)} rows",
            do="give encoded rows with labels, for example the validation split",
        )
    return found


def num_labels(row: Mapping[str, Any]) -> int:
    """Return the number of label tokens that have a token before them."""
    return sum(label != _IGNORED for label in row["labels"][1:])


def calibration_ids(
    rows: Sequence[Mapping[str, Any]], limit: int, max_length: int
) -> list[list[int]]:
    """Return token ids of rows spread evenly over all, each cut to `max_length` tokens.

    Raises:
        DataError: together they are too short to say anything of a layer.
    """
    count = min(limit, len(rows))
    chosen = [
        list(rows[place * len(rows) // count]["input_ids"])[:max_length] for place in range(count)
    ]
    total = sum(map(len, chosen))
    if total < _LEAST_TOKENS:
        raise DataError(
            "the calibration rows are too short",
            where="quantize",
            found=f"{total} tokens in {count} rows",
            expected=f"at least {_LEAST_TOKENS} tokens; some hundred thousand are usual",
            do="give more or longer training rows, raise quantize.quant_n_samples or max_length, "
            "or use a quant_method without calibration: fp8, bnb, torchao",
        )
    return chosen
