"""Rows of a tensor from all processes, with a gradient that goes back to where each came from.

Shapes: S rows of this process, R of all, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed


def gather_rows(own_SD: Tensor, counts: Sequence[int], rank: int) -> Tensor:
    """Return the rows of all processes in their order, [R, D].

    All have to take part in the backward pass: a row's gradient is the sum of what each of them
    made of it.

    Args:
        own_SD: this process's rows.
        counts: rows of each process.
        rank: number of this process.
    """
    return _Gather.apply(own_SD, tuple(counts), rank)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_SD: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        start = sum(counts[:rank])
        ctx.place = slice(start, start + counts[rank])
        # Tensors that are exchanged have to be equally long.
        filled = own_SD.new_zeros((max(counts), own_SD.shape[1]))
        filled[: len(own_SD)] = own_SD
        parts = [torch.empty_like(filled) for _ in counts]
        distributed.all_gather(parts, filled)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        gradient_RD = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient_RD)
        return gradient_RD[ctx.place], None, None
