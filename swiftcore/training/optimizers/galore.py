"""GaLore: an optimizer that steps in a low-rank projection of the gradients of matrices.

Each projected matrix has a stand-in of the projection's shape. The inner optimizer sees the
stand-in, whose value is zero and whose gradient is the projected one; what it makes of the zero is
the update, which is lifted to the matrix. So any optimizer whose update does not depend on the
weights can be the inner one, with its own kind of state. Weight decay is decoupled and acts on the
matrix itself.

Source: Zhao et al. 2024, GaLore (arXiv:2403.03507); Zhang et al. 2024, Q-GaLore (arXiv:2407.08296).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from swiftcore.training.optimizers.groups import Group
from swiftcore.training.optimizers.projection import Projection, ProjectionSettings


class Galore(Optimizer):
    """Steps projected matrices, and all other parameters as they are.

    Args:
        groups: parameters with `lr` and `weight_decay`.
        projected: ids of the parameters to project.
        settings: how.
        scale: factor of the lifted updates.
        inner: makes the optimizer of groups.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        projected: Collection[int],
        settings: ProjectionSettings,
        scale: float,
        inner: Callable[[list[Group]], Optimizer],
    ) -> None:
        split = [part for group in groups for part in _split(group, projected)]
        self._scale = scale
        self._projections: list[Projection] = []
        # Of each outer group, its projections; empty where the parameters are stepped as they are.
        self._by_group: list[list[Projection]] = []
        super().__init__(split, {"lr": groups[0]["lr"], "weight_decay": 0.0})
        self.inner = inner([self._inner_group(group, projected, settings) for group in split])

    def projections(self) -> list[Projection]:
        """Return the projection of each projected matrix."""
        return list(self._projections)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]: nobody passes a closure
        """Project gradients, step, and lift the updates."""
        for outer, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner["lr"] = outer["lr"]
        for matrix, stand_in, projection, _ in self._matrices():
            stand_in.grad = None if matrix.grad is None else projection.lower(matrix.grad)
        self.inner.step()
        for matrix, stand_in, projection, decay in self._matrices():
            if matrix.grad is not None:
                matrix.mul_(1 - decay).add_(projection.lift(stand_in), alpha=self._scale)
                stand_in.zero_()
                stand_in.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state, the projections and the rates of the groups."""
        return {
            "inner": self.inner.state_dict(),
            "projections": [projection.state_dict() for projection in self._projections],
            "groups": [_settings(group) for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        self.inner.load_state_dict(state_dict["inner"])
        for projection, state in zip(self._projections, state_dict["projections"], strict=True):
            projection.load_state_dict(state)
        for group, saved in zip(self.param_groups, state_dict["groups"], strict=True):
            group.update(saved)

    def _inner_group(
        self, group: Group, projected: Collection[int], settings: ProjectionSettings
    ) -> Group:
        if id(group["params"][0]) not in projected:
            self._by_group.append([])
            return dict(group)
        made = [Projection(matrix.shape, settings) for matrix in group["params"]]
        self._by_group.append(made)
        self._projections += made
        stand_ins = [
            nn.Parameter(matrix.new_zeros(projection.low_shape()))
            for matrix, projection in zip(group["params"], made, strict=True)
        ]
        return {**group, "params": stand_ins, "weight_decay": 0.0}

    def _matrices(self) -> Iterator[tuple[Tensor, Tensor, Projection, float]]:
        """Yield each projected matrix with its stand-in, projection, and share lost to decay."""
        groups = zip(self.param_groups, self.inner.param_groups, self._by_group, strict=True)
        for outer, inner, projections in groups:
            if projections:
                decay = outer["lr"] * outer["weight_decay"]
                for trio in zip(outer["params"], inner["params"], projections, strict=True):
                    yield *trio, decay


def _split(group: Group, projected: Collection[int]) -> Iterator[Group]:
    """Yield a group's projected parameters, and the others, apart."""
    for wanted in (True, False):
        chosen = [p for p in group["params"] if (id(p) in projected) == wanted]
        if chosen:
            yield {**group, "params": chosen}


def _settings(group: Group) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}
