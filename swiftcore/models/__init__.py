"""Model folders: building one from nothing, loading one, stating facts about one."""

from typing import TYPE_CHECKING

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

_IMPORTS_TORCH = {
    "build_scratch": "swiftcore.models.scratch",
    "load_adapted_model": "swiftcore.models.loading",
    "load_model": "swiftcore.models.loading",
    "load_tokenizer": "swiftcore.models.loading",
}


def __getattr__(name: str) -> object:
    """Import torch and transformers only when a name that needs them is used."""
    if name not in _IMPORTS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_IMPORTS_TORCH[name]), name)
