"""What vLLM can't know of a machine without a GPU, or finds out too late: cache and head sizes."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError

_GIB = 1 << 30
# What the machine's free memory gives to the cache.
_CACHE_SHARE = 0.25
# Of a cached number in the widest type.
_BYTES = 4
# CPUAttentionBackend.get_supported_head_sizes of vLLM 0.32; any other ends it at the first request.
_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)


@dataclass(frozen=True)
class _Attention:
    """The numbers of a model's attention that decide what a cached token takes."""

    num_layers: int
    num_heads: int
    head_size: int
    max_length: int


def require_head_size(model_dir: Path) -> None:
    """Refuse a model whose attention vLLM has no CPU code for.

    Raises:
        UsageError: names the head size.
    """
    attention = _attention(model_dir)
    if attention is not None and attention.head_size not in _HEAD_SIZES:
        raise UsageError(
            "vLLM has no attention of this head size for CPUs",
            where=model_dir / "config.json",
            found=f"head size {attention.head_size}",
            expected=f"one of {', '.join(map(str, _HEAD_SIZES))}",
            do="use infer_backend pt, or serve it on a GPU",
        )


def cache_gib(model_dir: Path, max_length: int | None, num_sequences: int, free_bytes: int) -> int:
    """Return whole GiB for the cache: what all sequences can fill, at most a quarter of the free.

    Args:
        model_dir: the model.
        max_length: longest sequence; None: what the model was made for.
        num_sequences: those processed together.
        free_bytes: main memory that nobody uses.
    """
    most = max(1, int(free_bytes * _CACHE_SHARE) // _GIB)
    attention = _attention(model_dir)
    if attention is None:
        return most
    keys_and_values = 2 * attention.num_layers * attention.num_heads * attention.head_size
    tokens = num_sequences * (max_length or attention.max_length)
    return min(most, max(1, math.ceil(keys_and_values * _BYTES * tokens / _GIB)))


def _attention(model_dir: Path) -> _Attention | None:
    """Return the attention's numbers, None where config.json writes them in another way."""
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    try:
        return _Attention(
            num_layers=config["num_hidden_layers"],
            num_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            head_size=_head_size(config),
            max_length=config["max_position_embeddings"],
        )
    except KeyError:
        return None


def _head_size(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
