"""How the rows of a batch lie side by side in one sequence, without padding between them.

This is the one place that says it: where each row begins and ends, and that positions start anew
in each. Attention (`row_attention`) and the label loss read it from here. Where processes share the
tokens of a sequence, it also says which are whose; several padded rows are then laid out alike.

Shapes: B rows (1 where they lie side by side), T tokens of a sequence, S those of one process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from swiftcore.training.token_group import TokenGroup


@dataclass(frozen=True)
class RowLayout:
    """Rows in one sequence, one directly after the other.

    Args:
        lengths: tokens of each row, none of them 0.
        group: processes that share the tokens; their number divides that of the tokens.
    """

    lengths: tuple[int, ...]
    group: "TokenGroup | None" = None

    @classmethod
    def shared(cls, lengths: tuple[int, ...], group: "TokenGroup") -> "RowLayout":
        """Return the layout of rows whose tokens are shared; a last row fills up what is missing.

        A row of its own, so that no position goes beyond those of real tokens.
        """
        missing = group.missing(sum(lengths))
        return cls((*lengths, missing) if missing else lengths, group)

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

    def inputs(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Return what a model's forward takes of whole sequences of tokens, [B, T]."""
        position_ids = self.position_ids(input_ids.device)
        if self.group is None:
            return {"input_ids": input_ids, "position_ids": position_ids}
        own_BS = self.group.part(input_ids, 0)
        return {
            "input_ids": own_BS,
            "position_ids": self.group.part(position_ids, 0).expand(len(own_BS), -1),
            # Without one transformers looks for rows in the positions, and finds this part's alone.
            "attention_mask": torch.ones_like(own_BS),
        }


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
