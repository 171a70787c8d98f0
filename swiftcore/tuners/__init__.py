"""Which weights of a model are trained: LoRA adapters, or the model itself with parts frozen."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swiftcore.tuners.prepare import ParameterCount, count_parameters, prepare_model

__all__ = ["ParameterCount", "count_parameters", "prepare_model"]


def __getattr__(name: str) -> object:
    """Import torch only when a tuner is really used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from swiftcore.tuners import prepare

    return getattr(prepare, name)
