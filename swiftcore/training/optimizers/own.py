"""An optimizer that a file of the user's own registers."""

from typing import Any

from torch.optim import Optimizer

from swiftcore.errors import UsageError
from swiftcore.training.optimizers.groups import Group
from swiftcore.training.plugins import plugin


def own_optimizer(name: str, groups: list[Group]) -> Optimizer:
    """Return what a registered maker makes of the parameter groups.

    Raises:
        UsageError: nothing is registered under the name, it is no optimizer of torch, or it does
            not step just the parameters that it was given.
    """
    made: Any = plugin("optimizer", name)(groups)
    if not isinstance(made, Optimizer):
        raise _unfit(name, type(made).__name__, "a torch.optim.Optimizer")
    given, taken = _ids(groups), _ids(made.param_groups)
    if taken != given:
        found = f"{len(taken)} parameters in its groups"
        raise _unfit(name, found, f"the {len(given)} that it was given")
    return made


def _ids(groups: list[Group]) -> list[int]:
    return sorted(id(parameter) for group in groups for parameter in group["params"])


def _unfit(name: str, found: str, expected: str) -> UsageError:
    return UsageError(
        "what the plug-in made can't train this model",
        where=f"train.optimizer: {name}",
        found=found,
        expected=expected,
        do="return an optimizer over the groups that the function is given",
    )
