"""Generation: prompts in, answers out, batched on any causal language model."""

from typing import TYPE_CHECKING, Any

from swiftcore.generation.params import Completion, Delta, Engine, FinishReason, SamplingParams

if TYPE_CHECKING:
    from swiftcore.generation.batcher import Batcher, Ticket
    from swiftcore.generation.engine import TransformersEngine

__all__ = [
    "Batcher",
    "Completion",
    "Delta",
    "Engine",
    "FinishReason",
    "SamplingParams",
    "Ticket",
    "TransformersEngine",
]

_LATE = {
    "Batcher": "swiftcore.generation.batcher",
    "Ticket": "swiftcore.generation.batcher",
    "TransformersEngine": "swiftcore.generation.engine",
}


def __getattr__(name: str) -> Any:
    """Import the modules that need torch when they are first asked for."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
