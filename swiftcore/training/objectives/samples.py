"""Batches of rows whose texts are scored.

Shapes: B rows, S texts of all rows, T tokens of the longest, N documents.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from swiftcore.training.objectives.objective import Batch
from swiftcore.training.rows import Row

_INPUTS = ("input_ids", "attention_mask", "targets", "sizes", "keys")


class SampleCollator:
    """Pads the texts of rows on the right into tensors [S, T].

    Args:
        pad_id: token that fills short texts.
        num_negatives: negatives of each row, its first ones or its own repeated; None: all.
    """

    def __init__(self, pad_id: int, num_negatives: int | None = None) -> None:
        self._pad_id = pad_id
        self._num_negatives = num_negatives

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """Return input_ids, attention_mask, targets, texts a row (sizes), keys, lengths, rows.

        Texts of equal tokens have equal keys, in every process.
        """
        groups = [self._chosen(row) for row in rows]
        texts = [text for group, _ in groups for text in group]
        longest = max(map(len, texts))
        return {
            "input_ids": torch.tensor(
                [text + [self._pad_id] * (longest - len(text)) for text in texts]
            ),
            "attention_mask": torch.tensor(
                [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
            ),
            "targets": torch.tensor([target for _, targets in groups for target in targets]),
            "sizes": torch.tensor([len(group) for group, _ in groups]),
            # Python mixes seeds into the hashes of strings, not into those of numbers.
            "keys": torch.tensor([hash(tuple(text)) for text in texts]),
            "lengths": torch.tensor([len(text) for text in texts]),
            "rows": torch.tensor([row["row"] for row in rows]),
        }

    def _chosen(self, row: Row) -> tuple[list[list[int]], list[float]]:
        texts, targets = texts_of(row), list(row["targets"])
        if self._num_negatives is None or len(texts) == 2:
            return texts, targets
        negatives = [texts[2 + at % (len(texts) - 2)] for at in range(self._num_negatives)]
        return [*texts[:2], *negatives], [targets[0], *[0.0] * len(negatives)]


def texts_of(row: Row) -> list[list[int]]:
    """Return the tokens of each text of an encoded row."""
    bounds = pairwise(accumulate(row["sequence_lengths"], initial=0))
    return [list(row["input_ids"][start:stop]) for start, stop in bounds]


class SampleObjective:
    """What the objectives of scored texts have in common: their batches.

    Args:
        collator: makes them.
        separator: token that ends the first of two texts a model reads together.
    """

    def __init__(self, collator: SampleCollator, separator: int | None = None) -> None:
        self._collator = collator
        self._separator = separator

    def collate(self, rows: Sequence[Row | Sequence[Row]]) -> Batch:
        """Return the texts of all rows in a row's order, their targets, lengths and row numbers."""
        return self._collator(rows)  # pyright: ignore[reportArgumentType]

    def inputs(self, batch: Batch) -> Batch:
        """Return texts, targets and which texts belong together."""
        return {name: value for name, value in batch.items() if name in _INPUTS}

    def model_inputs(self, model: Any, input_ids_ST: Tensor, mask_ST: Tensor) -> dict[str, Tensor]:
        """Return what the model itself takes: with token types, where it knows two of them.

        What follows the first separator is the second text, as a tokenizer of BERT writes a pair.
        """
        given = {"input_ids": input_ids_ST, "attention_mask": mask_ST}
        if self._separator is None or getattr(model.config, "type_vocab_size", 0) < 2:
            return given
        ends_ST = (input_ids_ST == self._separator).long()
        behind_ST = ends_ST.cumsum(1) - ends_ST > 0
        return given | {"token_type_ids": behind_ST.long() * mask_ST}
