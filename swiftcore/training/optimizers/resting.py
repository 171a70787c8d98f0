"""Optimizers that train at one point and answer at another: when to move the weights."""

from typing import Any

from transformers import TrainerCallback


def rest(optimizer: Any) -> None:
    """Bring the weights to the point they are evaluated and saved at; training moves them back."""
    to_rest = getattr(optimizer, "eval", None)
    if callable(to_rest):
        to_rest()


class RestAtEnd(TrainerCallback):
    """Leaves the weights of a finished training where they are evaluated and saved."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move them there."""
        rest(kwargs["optimizer"])
