"""Generation: prompts in, answers out, batched on any causal language model."""

from typing import TYPE_CHECKING

from swiftcore.generation.params import Completion, Delta, Engine, FinishReason, SamplingParams
from swiftcore.lazy import late_names

if TYPE_CHECKING:
    from swiftcore.generation.batcher import Batcher, Ticket
    from swiftcore.generation.engine import TransformersEngine
    from swiftcore.generation.tool_client import ToolPlace
    from swiftcore.generation.tool_engine import ToolEngine

__all__ = [
    "Batcher",
    "Completion",
    "Delta",
    "Engine",
    "FinishReason",
    "SamplingParams",
    "Ticket",
    "ToolEngine",
    "ToolPlace",
    "TransformersEngine",
]

__getattr__ = late_names(
    __name__,
    {
        "batcher": ("Batcher", "Ticket"),
        "engine": ("TransformersEngine",),
        "tool_client": ("ToolPlace",),
        "tool_engine": ("ToolEngine",),
    },
)
