"""Rewards by name: those that come with this library, and those that plug-ins register."""

import difflib
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, TypeVar

from swiftcore.errors import UsageError


class Reward(Protocol):
    """Says what completions are worth."""

    def __call__(self, completions: list[str], /, **columns: Any) -> list[float | None]:
        """Return a number for each completion, None where the reward does not apply.

        Args:
            completions: texts of answers.
            columns: what is known of each, such as `solution`, lists as long as `completions`.
        """
        ...


_Part = TypeVar("_Part", bound=Callable[..., Any])

_BUILT_IN = {
    "accuracy": "answers:Accuracy",
    "math": "answers:MathAnswer",
    "exact_match": "answers:ExactMatch",
    "format": "forms:ThinkAnswerForm",
    "react_format": "forms:ReactForm",
    "cosine": "lengths:CosineLength",
    "soft_overlong": "lengths:SoftOverlong",
    "repetition": "lengths:Repetition",
    "toolbench": "calls:ToolbenchCall",
}
_registered: dict[str, Callable[..., Any]] = {}


def register_reward(name: str) -> Callable[[_Part], _Part]:
    """Register a reward under a name: a function, or a class that is made with settings first.

    Raises:
        UsageError: the name is one of this library's.
    """
    if name in _BUILT_IN:
        raise UsageError(
            "a reward of that name comes with this library",
            where=f"register_reward({name!r})",
            expected="another name",
        )

    def register(part: _Part) -> _Part:
        _registered[name] = part
        return part

    return register


def list_rewards() -> list[str]:
    """Return the names of all rewards."""
    return [*_BUILT_IN, *_registered]


def get_reward(name: str, **settings: Any) -> Reward:
    """Return a reward by its name.

    Args:
        name: one of `list_rewards()`.
        settings: of this reward, such as `cosine_max_len`.

    Raises:
        UsageError: there is no such reward, or its settings lack, are unknown or have no meaning.
    """
    maker = _maker(name)
    if not isinstance(maker, type):
        if settings:
            raise _wrong_settings(name, f"{', '.join(settings)}: this reward takes no settings")
        return maker
    try:
        inspect.signature(maker).bind(**settings)
    except TypeError as err:
        raise _wrong_settings(name, str(err)) from err
    return maker(**settings)


def _maker(name: str) -> Callable[..., Any]:
    if name in _BUILT_IN:
        module, _, made = _BUILT_IN[name].partition(":")
        return getattr(import_module(f"swiftcore.rewards.{module}"), made)
    if name in _registered:
        return _registered[name]
    near = difflib.get_close_matches(name, list_rewards(), n=1)
    raise UsageError(
        "there is no such reward",
        where="reward",
        found=name,
        expected=f"{near[0]}?" if near else ", ".join(list_rewards()),
        do="check the name, or register it in a file of external_plugins",
    )


def _wrong_settings(name: str, found: str) -> UsageError:
    return UsageError("the settings of a reward are wrong", where=f"reward {name}", found=found)
