"""Matrices stored in 4 or 8 bits, with a scale for each group of numbers.

Source: Zhang et al. 2024, Q-GaLore (arXiv:2407.08296), section 3.2.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class FewBits:
    """A matrix as whole numbers: value = low + step * code, by group.

    Args:
        codes: uint8; of 4 bits, two in each byte. The last group may be filled up.
        low: smallest value of each group, [G, 1].
        step: distance of two neighbouring values, [G, 1].
        shape: of the matrix.
        bits: 4 or 8.
    """

    codes: Tensor
    low: Tensor
    step: Tensor
    shape: tuple[int, ...]
    bits: int

    @classmethod
    def of(cls, matrix: Tensor, bits: int, group_size: int) -> "FewBits":
        """Return the nearest matrix of so many bits."""
        flat = matrix.detach().float().flatten()
        short = -len(flat) % group_size
        # The filling repeats a value, so that it widens no group.
        filled = torch.cat([flat, flat[-1:].expand(short)]).view(-1, group_size)
        low = filled.amin(dim=1, keepdim=True)
        step = (filled.amax(dim=1, keepdim=True) - low) / (2**bits - 1)
        whole = ((filled - low) / step.clamp(min=torch.finfo(torch.float32).tiny)).round()
        codes = whole.to(torch.uint8).flatten()
        return cls(_packed(codes) if bits == 4 else codes, low, step, tuple(matrix.shape), bits)

    def matrix(self) -> Tensor:
        """Return the matrix, in float32."""
        codes = _unpacked(self.codes) if self.bits == 4 else self.codes
        filled = codes.view(len(self.low), -1) * self.step + self.low
        return filled.flatten()[: math.prod(self.shape)].view(self.shape)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return dict(vars(self))


def _packed(codes: Tensor) -> Tensor:
    return codes[0::2] | (codes[1::2] << 4)


def _unpacked(codes: Tensor) -> Tensor:
    return torch.stack([codes & 15, codes >> 4], dim=1).flatten()
