"""The model under whatever wraps it, and a forward of ours in the place of its own."""

import types
from collections.abc import Callable
from typing import Any


def unwrapped(model: Any) -> Any:
    """Return the model itself, with peft's adapters inside it or not."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def replace_forward(model: Any, forward: Callable[..., Any]) -> None:
    """Make `forward(self, ...)` the method of the model itself; its class keeps the first one."""
    plain = unwrapped(model)
    plain.forward = types.MethodType(forward, plain)
