"""Schedule-free SGD, AdamW and RAdam: an average of all iterates replaces a falling rate.

The gradient is taken at y = (1 - beta) z + beta x, where z is the plain iterate and x the average
that is evaluated. The parameters hold y in training and x at rest; z is the state, and x follows
from both.

Source: Defazio et al. 2024, The Road Less Scheduled (arXiv:2405.15682); for the rectified step Liu
et al. 2020, RAdam (arXiv:1908.03265).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from swiftcore.training.optimizers.groups import Group


class ScheduleFree(Optimizer):
    """One of the three; warm-up comes from a schedule, and nothing else should.

    Args:
        groups: parameters with `lr` and `weight_decay`.
        kind: what a step of z is.
        beta: how far y is from z towards x; Adam's beta1, or SGD's momentum.
        beta2: of the second moment; SGD has none.
        epsilon: added to its root.
    """

    def __init__(
        self,
        groups: list[Group],
        *,
        kind: Literal["sgd", "adamw", "radam"],
        beta: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self._kind = kind
        defaults = {
            "lr": groups[0]["lr"],
            "weight_decay": 0.0,
            "beta": beta,
            "beta2": beta2,
            "eps": epsilon,
            "steps": 0,
            "largest_rate": 0.0,
            "weight_sum": 0.0,
            "training": True,
        }
        super().__init__(groups, defaults)

    def train(self) -> None:
        """Bring the weights to y."""
        self._move(to_training=True)

    def eval(self) -> None:
        """Bring the weights to x."""
        self._move(to_training=False)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]: nobody passes a closure
        """Move z by one step, and y with it."""
        for group in self.param_groups:
            if not group["training"]:
                raise RuntimeError("a step at rest: call train() first")
            group["steps"] += 1
            rate = group["lr"] * self._rectification(group)
            group["largest_rate"] = max(group["largest_rate"], rate)
            weight = group["largest_rate"] ** 2
            group["weight_sum"] += weight
            share = weight / group["weight_sum"] if group["weight_sum"] else 0.0
            for y in group["params"]:
                if y.grad is not None:
                    self._update(y, group, rate, share)

    def _update(self, y: Tensor, group: Group, rate: float, share: float) -> None:
        state = self.state[y]
        if not state:
            state["z"] = y.clone()
            if self._kind != "sgd":
                state["exp_avg_sq"] = torch.zeros_like(y)
        direction = self._direction(y.grad, state, group).add(y, alpha=group["weight_decay"])
        # x' = (1 - c) x + c z' and y' = (1 - beta) z' + beta x', written without x.
        y.lerp_(state["z"], share)
        y.add_(direction, alpha=rate * (group["beta"] * (1 - share) - 1))
        state["z"].sub_(direction, alpha=rate)

    def _direction(self, grad: Any, state: dict[str, Any], group: Group) -> Tensor:
        if self._kind == "sgd":
            return grad
        beta2, steps = group["beta2"], group["steps"]
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        return grad / (second / (1 - beta2**steps)).sqrt_().add_(group["eps"])

    def _rectification(self, group: Group) -> float:
        """Return RAdam's factor, which is 0 while the variance of the step can't be known."""
        if self._kind != "radam":
            return 1.0
        most, now = 2 / (1 - group["beta2"]) - 1, _free_terms(group["beta2"], group["steps"])
        if now <= 4:
            return 0.0
        return math.sqrt((now - 4) * (now - 2) * most / ((most - 4) * (most - 2) * now))

    @torch.no_grad()
    def _move(self, *, to_training: bool) -> None:
        for group in self.param_groups:
            if group["training"] == to_training:
                continue
            group["training"] = to_training
            beta = group["beta"]
            for parameter in group["params"]:
                if parameter in self.state:
                    weight = 1 - beta if to_training else 1 - 1 / beta
                    parameter.lerp_(self.state[parameter]["z"], weight)


def _free_terms(beta2: float, steps: int) -> float:
    """Return rho_t, the length of the average that the second moment amounts to."""
    return 2 / (1 - beta2) - 1 - 2 * steps * beta2**steps / (1 - beta2**steps)
