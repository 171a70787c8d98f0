"""Which weights of a model are trained: a tuner's, or the model's own with parts frozen."""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

if TYPE_CHECKING:
    from swiftcore.tuners.folded import Folding, fold_lora
    from swiftcore.tuners.folder import load_adapter, merge_tuner, save_adapter
    from swiftcore.tuners.prepare import ParameterCount, count_parameters, prepare_model

__all__ = [
    "Folding",
    "ParameterCount",
    "count_parameters",
    "fold_lora",
    "load_adapter",
    "merge_tuner",
    "prepare_model",
    "save_adapter",
]

__getattr__ = late_names(
    __name__,
    {
        "folded": ("Folding", "fold_lora"),
        "folder": ("load_adapter", "merge_tuner", "save_adapter"),
        "prepare": ("ParameterCount", "count_parameters", "prepare_model"),
    },
)
