"""How the rows of a batch lie side by side in one sequence, without padding between them.

This is the one place that says it: where each row begins and ends, and that positions start anew
in each. Attention (`row_attention`) and the label loss read it from here.

Shapes: T tokens of all rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowLayout:
    """Rows in one sequence, one directly after the other.

    Args:
        lengths: tokens of each row, none of them 0.
    """

    lengths: tuple[int, ...]

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """Start and end of each row."""
        return list(pairwise(accumulate(self.lengths, initial=0)))

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self.lengths)

    def position_ids(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the place of each token in its own row, [1, T]."""
        places = [torch.arange(length) for length in self.lengths]
        return torch.cat(places)[None].to(device)


_current: ContextVar[RowLayout | None] = ContextVar("row_layout", default=None)


@contextmanager
def laid_out(layout: RowLayout) -> Iterator[None]:
    """Let the forward pass inside know how its one sequence divides into rows."""
    token = _current.set(layout)
    try:
        yield
    finally:
        _current.reset(token)


def current_layout() -> RowLayout | None:
    """Return how the sequence of this forward pass divides into rows; None: it doesn't."""
    return _current.get()
