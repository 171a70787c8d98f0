"""The low rank that GaLore sees of a gradient: main directions of a matrix, renewed now and then.

Source: Zhao et al. 2024, GaLore (arXiv:2403.03507); Zhang et al. 2024, Q-GaLore (arXiv:2407.08296).
Shapes: M rows, N columns, R rank.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from swiftcore.training.optimizers.few_bits import FewBits

ProjectionKind = Literal["std", "reverse_std", "right", "left", "full"]


@dataclass(frozen=True)
class Renewal:
    """When projections that stay alike are renewed less often.

    Args:
        threshold: mean similarity of neighbouring projections from which the gap grows.
        growth: factor of the gap.
        queue_size: how many similarities count.
    """

    threshold: float
    growth: int
    queue_size: int


@dataclass(frozen=True)
class ProjectionSettings:
    """How matrices are projected.

    Args:
        rank: number of directions.
        gap: optimizer steps between renewals.
        kind: which side is projected; std is the shorter one, full are both.
        bits: of the stored directions; None keeps them as they are.
        group_size: numbers that share a scale, when `bits` is given.
        renewal: None renews after every gap.
    """

    rank: int
    gap: int
    kind: ProjectionKind = "std"
    bits: int | None = None
    group_size: int = 256
    renewal: Renewal | None = None


class Projection:
    """The projection of one matrix.

    Args:
        shape: of the matrix.
        settings: how it is projected.
    """

    def __init__(self, shape: torch.Size, settings: ProjectionSettings) -> None:
        self.gap = settings.gap
        self.num_renewals = 0
        self._settings = settings
        self._sides = _sides(shape, settings.kind)
        self._shape = shape
        self._steps = 0
        self._next = 0
        self._bases: dict[str, Tensor | FewBits] = {}
        self._leading: Tensor | None = None
        self._similar: list[float] = []

    def low_shape(self) -> tuple[int, int]:
        """Return the shape of what `lower` makes."""
        rank, (rows, columns) = self._settings.rank, self._shape
        return rank if "left" in self._sides else rows, rank if "right" in self._sides else columns

    def lower(self, grad_MN: Tensor) -> Tensor:
        """Return the gradient's projection, after renewing it where its time has come."""
        if self._steps >= self._next:
            self._renew(grad_MN)
            self._next = self._steps + self.gap
        self._steps += 1
        low = grad_MN
        if "left" in self._sides:
            low = self._basis("left", grad_MN).T @ low
        if "right" in self._sides:
            low = low @ self._basis("right", grad_MN)
        return low

    def lift(self, low: Tensor) -> Tensor:
        """Return an update of the whole matrix, [M, N]."""
        if "left" in self._sides:
            low = self._basis("left", low) @ low
        if "right" in self._sides:
            low = low @ self._basis("right", low).T
        return low

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        bases = {
            side: basis.state() if isinstance(basis, FewBits) else basis
            for side, basis in self._bases.items()
        }
        return {
            "gap": self.gap,
            "num_renewals": self.num_renewals,
            "steps": self._steps,
            "next": self._next,
            "bases": bases,
            "leading": self._leading,
            "similar": list(self._similar),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        self.gap, self.num_renewals = state["gap"], state["num_renewals"]
        self._steps, self._next = state["steps"], state["next"]
        self._bases = {
            side: FewBits(**basis) if isinstance(basis, dict) else basis
            for side, basis in state["bases"].items()
        }
        self._leading, self._similar = state["leading"], list(state["similar"])

    def _basis(self, side: str, like: Tensor) -> Tensor:
        basis = self._bases[side]
        return (basis.matrix() if isinstance(basis, FewBits) else basis).to(like)

    def _renew(self, grad_MN: Tensor) -> None:
        left, _, right_t = torch.linalg.svd(grad_MN.float(), full_matrices=False)
        rank, bits = self._settings.rank, self._settings.bits
        found = {"left": left[:, :rank], "right": right_t[:rank].T}
        for side in self._sides:
            basis = found[side].contiguous()
            self._bases[side] = (
                basis if bits is None else FewBits.of(basis, bits, self._settings.group_size)
            )
        self.num_renewals += 1
        if self._settings.renewal:
            self._compare(found[self._sides[0]][:, 0].clone(), self._settings.renewal)

    def _compare(self, leading: Tensor, renewal: Renewal) -> None:
        """Let the gap grow when the leading direction has stayed."""
        if self._leading is not None:
            # A singular vector is known up to its sign.
            self._similar.append(abs(float(self._leading @ leading)))
            self._similar = self._similar[-renewal.queue_size :]
            full = len(self._similar) == renewal.queue_size
            if full and sum(self._similar) / renewal.queue_size >= renewal.threshold:
                self.gap *= renewal.growth
        self._leading = leading


def _sides(shape: torch.Size, kind: ProjectionKind) -> tuple[str, ...]:
    """Return which sides lose their length: std that of the shorter side, whose basis is small."""
    tall = shape[0] >= shape[1]
    if kind == "full":
        return "left", "right"
    if kind == "std":
        return ("right",) if tall else ("left",)
    if kind == "reverse_std":
        return ("left",) if tall else ("right",)
    return (kind,)
