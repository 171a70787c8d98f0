"""A model behind a started tool, as an engine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.backends import ServeOrder, ToolServer
from swiftcore.generation.dialects import dialect_of
from swiftcore.generation.limits import folder_limits
from swiftcore.generation.tool_client import ToolPlace
from swiftcore.generation.tool_engine import ToolEngine
from swiftcore.models.files import read_json
from swiftcore.recipe.sections import Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The tools' own settings of the longest sequence.
_LENGTHS = {
    "vllm": "vllm_max_model_len",
    "sglang": "sglang_context_length",
    "lmdeploy": "lmdeploy_session_len",
}


def engine_of(
    server: ToolServer,
    order: ServeOrder,
    tokenizer: "PreTrainedTokenizerBase",
    stop_words: Sequence[str],
    adapter: str | None = None,
    when_ended: Callable[[], None] = lambda: None,
) -> ToolEngine:
    """Return an engine over a running tool, for its model or one of its adapters.

    Args:
        server: the tool.
        order: what it serves.
        tokenizer: of the model.
        stop_words: of the template that writes the prompts.
        adapter: name of one that the order holds.
        when_ended: called by a request that finds the tool ended.
    """
    length = order.max_model_len or getattr(order.settings, _LENGTHS[order.backend])
    limits, stops = folder_limits(order.model_dir, tokenizer, stop_words, length)
    model = adapter or server.model
    # SGLang finds an adapter by the model's name before it.
    if adapter is not None and order.backend == "sglang":
        model = f"{server.model}:{adapter}"
    place = ToolPlace(
        server.url,
        model,
        server.key,
        is_running=lambda: server.running,
        when_ended=when_ended,
    )
    return ToolEngine(place, dialect_of(order.backend), tokenizer, limits, stops)


def stored_dtype(model_dir: Path) -> Dtype | None:
    """Return the data type that a model's folder names; left alone, vLLM makes float32 float16."""
    config = read_json(model_dir / "config.json")
    named = config.get("dtype") or config.get("torch_dtype")
    return named if named in ("float16", "bfloat16", "float32") else None
