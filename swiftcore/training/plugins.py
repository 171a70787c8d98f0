"""Parts of a training that come from the user's own Python files, by the names they register.

A file that the recipe names in `train.external_plugins` registers a loss, a metric, a callback or
an optimizer:

    from swiftcore.training.plugins import register_loss

    @register_loss("squared_margin")
    def squared_margin(logits, targets):   # [N, V] float32, [N] -> [N]
        ...

Its content is part of the run's identity. Weights, divisors and chunks of a loss are not its
business, and neither are groups, rates and schedule of an optimizer.
"""

import hashlib
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from swiftcore.errors import UsageError

Kind = Literal["loss", "metric", "callback", "optimizer"]
Part = TypeVar("Part", bound=Callable[..., Any])

_SETTING = "train.external_plugins"
_SETTINGS: dict[Kind, str] = {
    "loss": "loss_type",
    "metric": "metric",
    "callback": "callbacks",
    "optimizer": "optimizer",
}
_registered: dict[tuple[Kind, str], Any] = {}


def register_loss(name: str) -> Callable[[Part], Part]:
    """Register a loss for `train.loss_type`: (logits [N, V], targets [N]) -> loss of each [N]."""
    return _registers("loss", name)


def register_metric(name: str) -> Callable[[Part], Part]:
    """Register a score for `train.metric`: (answer, reference) -> number; the mean is reported."""
    return _registers("metric", name)


def register_callback(name: str) -> Callable[[Part], Part]:
    """Register a `transformers.TrainerCallback` class for `train.callbacks`."""
    return _registers("callback", name)


def register_optimizer(name: str) -> Callable[[Part], Part]:
    """Register a maker for `train.optimizer`: parameter groups -> `torch.optim.Optimizer`.

    Each group has `params`, `lr` (at its peak; the schedule moves it) and `weight_decay`.
    """
    return _registers("optimizer", name)


def plugin_digests(files: Sequence[str], setting: str = _SETTING) -> list[str]:
    """Return the sha256 of each file's content; `setting` names the files, for errors.

    Raises:
        UsageError: one of them is no Python file.
    """
    return [hashlib.sha256(_checked(name, setting).read_bytes()).hexdigest() for name in files]


def load_plugins(files: Sequence[str], setting: str = _SETTING) -> None:
    """Run the files, so that what they register is known; `setting` names them, for errors.

    Raises:
        UsageError: a file is not there, is no Python file, or fails.
    """
    _registered.clear()
    for name in files:
        path = _checked(name, setting)
        try:
            runpy.run_path(str(path))
        except Exception as err:
            raise UsageError(
                "a plug-in failed",
                where=f"{setting}: {name}",
                found=f"{type(err).__name__}: {err}",
                do="mend the file; running it alone shows where",
            ) from err


def plugin(kind: Kind, name: str) -> Any:
    """Return what is registered under a name.

    Raises:
        UsageError: nothing is.
    """
    found = _registered.get((kind, name))
    if found is None:
        names = [known for its_kind, known in _registered if its_kind == kind]
        raise UsageError(
            f"there is no such {kind}",
            where=f"train.{_SETTINGS[kind]}",
            found=name,
            expected=", ".join(names)
            or f"a {kind} that a file of train.external_plugins registers",
            do="check the name, and that the file registers it",
        )
    return found


def _registers(kind: Kind, name: str) -> Callable[[Part], Part]:
    def register(part: Part) -> Part:
        _registered[kind, name] = part
        return part

    return register


def _checked(name: str, setting: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix == ".py" and path.is_file():
        return path
    raise UsageError(
        "there is no such plug-in",
        where=setting,
        found=name,
        expected="a .py file",
        do="check the path; it is read from the folder the command runs in",
    )
