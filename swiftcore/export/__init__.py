"""Making other forms of a trained model: merged with its adapter, or in fewer bits."""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

if TYPE_CHECKING:
    from swiftcore.export.by_backend import Workplace
    from swiftcore.export.merge import MergeReport, merge_adapter
    from swiftcore.export.quantize import QuantizeReport, quantize_model

__all__ = ["MergeReport", "QuantizeReport", "Workplace", "merge_adapter", "quantize_model"]

__getattr__ = late_names(
    __name__,
    {
        "by_backend": ("Workplace",),
        "merge": ("MergeReport", "merge_adapter"),
        "quantize": ("QuantizeReport", "quantize_model"),
    },
)
