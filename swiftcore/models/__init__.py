"""Model folders: building one from nothing, loading one, stating facts about one."""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names
from swiftcore.models.facts import model_facts
from swiftcore.models.files import copy_tokenizer_files, require_model_folder

if TYPE_CHECKING:
    from swiftcore.models.loading import load_adapted_model, load_model, load_tokenizer
    from swiftcore.models.scratch import build_scratch

__all__ = [
    "build_scratch",
    "copy_tokenizer_files",
    "load_adapted_model",
    "load_model",
    "load_tokenizer",
    "model_facts",
    "require_model_folder",
]

__getattr__ = late_names(
    __name__,
    {
        "scratch": ("build_scratch",),
        "loading": ("load_adapted_model", "load_model", "load_tokenizer"),
    },
)
