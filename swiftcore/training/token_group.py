"""Processes that share the tokens of each sequence, and how they trade tokens for heads.

Of a sequence each process holds one stretch of tokens, the first its beginning. Layers that treat
every token by itself need no more. Around attention the processes trade: each gives its tokens of
the others' heads for all tokens of its own heads, attends over the whole sequence, and trades back.
So memory for activations falls with the number of processes, and no process waits for another's
part of a causal mask.

Source: Jacobs et al. 2023, DeepSpeed Ulysses (arXiv:2309.14509), section 3.

Shapes: B rows, T tokens, N processes, S = T / N tokens of one of them, H heads, K heads of keys and
values, D width of a head, V label tokens.
"""

from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional

from swiftcore.errors import UsageError
from swiftcore.training.distributed.world import World


@dataclass(eq=False)
class TokenGroup:
    """The processes that share sequences with this one.

    Args:
        size: how many they are, N.
        rank: which of them this is, from 0.
        handle: what torch knows them by.
        num_trades: how often they have traded, backward passes not counted.
    """

    size: int
    rank: int
    handle: Any
    num_trades: int = 0

    @classmethod
    def of(cls, world: World) -> "TokenGroup | None":
        """Return this process's group; None where each process has whole sequences.

        All processes have to call this at the same point.
        """
        if world.sharers == 1:
            return None
        starts = range(0, world.size, world.sharers)
        # Each process has to take part in making every group.
        handles = [
            distributed.new_group(list(range(start, start + world.sharers))) for start in starts
        ]
        return cls(world.sharers, world.rank % world.sharers, handles[world.team])

    def missing(self, num_tokens: int) -> int:
        """Return how many tokens are added so that all get as many."""
        return -num_tokens % self.size

    def part(self, whole_BT: Tensor, fill: float) -> Tensor:
        """Return this process's tokens, [B, S], with `fill` for those that are added."""
        filled = functional.pad(whole_BT, (0, self.missing(whole_BT.shape[1])), value=fill)
        return filled.chunk(self.size, dim=1)[self.rank].contiguous()

    def to_heads(self, tokens_BHSD: Tensor) -> Tensor:
        """Trade tokens of all heads for all tokens of this process's heads, [B, H / N, T, D]."""
        size_B, _, _, width_D = tokens_BHSD.shape
        given = tokens_BHSD.unflatten(1, (self.size, -1)).movedim(1, 0)
        taken = self._trade(given).movedim(0, 2)
        return taken.reshape(size_B, taken.shape[1], -1, width_D)

    def to_tokens(self, heads_BTHD: Tensor) -> Tensor:
        """Trade all tokens of this process's heads for its tokens of all heads, [B, S, H, D]."""
        given = heads_BTHD.unflatten(1, (self.size, -1)).movedim(1, 0)
        return self._trade(given).movedim(0, 2).flatten(2, 3)

    def repeats(self, num_heads: int, num_key_heads: int) -> int:
        """Return how often each head of keys and values is repeated, so that all can be dealt out.

        Raises:
            UsageError: heads of queries can't be dealt out evenly.
        """
        if num_heads % self.size:
            raise UsageError(
                "the heads of this model can't be dealt out to the processes that share tokens",
                where="train.sequence_parallel_size",
                found=f"{num_heads} heads, {self.size} processes",
                expected=f"a divisor of {num_heads}",
                do="choose another train.sequence_parallel_size",
            )
        fewest = self.size // gcd(self.size, num_key_heads)
        groups = num_heads // num_key_heads
        return fewest if groups % fewest == 0 else groups

    def whole(self, part_BS: Tensor) -> Tensor:
        """Return the tokens of all processes, [B, T], without a gradient."""
        parts = [torch.empty_like(part_BS) for _ in range(self.size)]
        distributed.all_gather(parts, part_BS.contiguous(), group=self.handle)
        return torch.cat(parts, dim=1)

    def of_all(self, values_V: Tensor, chosen_BS: Tensor) -> Tensor:
        """Return the values of chosen tokens of all processes, row by row.

        Args:
            values_V: of this process's chosen tokens, row by row.
            chosen_BS: which of its tokens they belong to.
        """
        spread_BS = values_V.new_zeros(chosen_BS.shape)
        spread_BS[chosen_BS] = values_V
        return self.whole(spread_BS)[self.whole(chosen_BS)]

    def _trade(self, given: Tensor) -> Tensor:
        self.num_trades += 1
        return _Trade.apply(given.contiguous(), self.handle)


class _Trade(torch.autograd.Function):
    """Give part i of the first dimension to process i, and take as many from each.

    What came from a process goes back to it: the backward pass is the same trade.
    """

    @staticmethod
    def forward(ctx: Any, given: Tensor, handle: Any) -> Tensor:
        ctx.handle = handle
        taken = torch.empty_like(given)
        distributed.all_to_all_single(taken, given, group=handle)
        return taken

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        given = grad_outputs[0].contiguous()
        taken = torch.empty_like(given)
        distributed.all_to_all_single(taken, given, group=ctx.handle)
        return taken, None
