"""Several optimizers that act as one."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class Joined(Optimizer):
    """Steps several optimizers, each with parameters of its own.

    A schedule sees all their groups, and one state holds all their states.

    Args:
        members: the optimizers.
    """

    def __init__(self, members: Sequence[Optimizer]) -> None:
        self.members = tuple(members)
        super().__init__(self._groups(), dict(self.members[0].defaults))

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]: nobody passes a closure
        """Step each member."""
        for member in self.members:
            member.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the members."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the states of the members."""
        for member, state in zip(self.members, state_dict["members"], strict=True):
            member.load_state_dict(state)
        # Loading makes new groups, which the schedule has to see.
        self.param_groups = self._groups()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for member in self.members for group in member.param_groups]


def forget(optimizer: Any, parameters: Sequence[Tensor]) -> None:
    """Drop what an optimizer remembers of parameters."""
    # accelerate wraps the optimizer that it was given.
    optimizer = getattr(optimizer, "optimizer", optimizer)
    for member in getattr(optimizer, "members", (optimizer,)):
        for parameter in parameters:
            member.state.pop(parameter, None)
