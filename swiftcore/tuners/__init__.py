"""Which weights of a model are trained: LoRA adapters, or the model itself with parts frozen."""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

if TYPE_CHECKING:
    from swiftcore.tuners.folded import Folding, fold_lora
    from swiftcore.tuners.prepare import ParameterCount, count_parameters, prepare_model

__all__ = ["Folding", "ParameterCount", "count_parameters", "fold_lora", "prepare_model"]

__getattr__ = late_names(
    __name__,
    {
        "folded": ("Folding", "fold_lora"),
        "prepare": ("ParameterCount", "count_parameters", "prepare_model"),
    },
)
