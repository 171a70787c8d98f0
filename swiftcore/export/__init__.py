"""Making other forms of a trained model: merged with its adapter, or in fewer bits."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swiftcore.export.merge import MergeReport, merge_adapter
    from swiftcore.export.quantize import QuantizeReport, quantize_model

__all__ = ["MergeReport", "QuantizeReport", "merge_adapter", "quantize_model"]

_MODULES = {
    "MergeReport": "swiftcore.export.merge",
    "QuantizeReport": "swiftcore.export.quantize",
    "merge_adapter": "swiftcore.export.merge",
    "quantize_model": "swiftcore.export.quantize",
}


def __getattr__(name: str) -> object:
    """Import torch only when something is really exported."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
