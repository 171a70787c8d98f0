"""Building a small model with random weights, byte for byte the same every time."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import UsageError
from swiftcore.models.files import read_json, write_json
from swiftcore.models.quiet import without_progress_bars
from swiftcore.models.tokenizer import (
    PAD_TOKEN,
    STOP_TOKEN,
    adopt_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from swiftcore.recipe.sections import ScratchModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

# Kernels of tensor cores and of vector units want the vocabulary to be a multiple of this.
_VOCAB_MULTIPLE = 64


def build_scratch(
    spec: ScratchModel,
    out_dir: Path,
    *,
    texts: Iterable[str] | None = None,
    added_tokens: Iterable[str] = (),
) -> Path:
    """Write a model folder with random weights and return it.

    Args:
        spec: shape of the model and seed of its weights.
        out_dir: folder to write into; made if it does not exist.
        texts: what the tokenizer is trained on; not needed with `spec.tokenizer`.
        added_tokens: words that the tokenizer keeps as one token each.

    Raises:
        UsageError: the shape is impossible, or neither texts nor a tokenizer are given.
        ModelMissing: `spec.tokenizer` holds no tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    _check_shape(spec)
    out_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(spec, texts, added_tokens)
    vocabulary = tokenizer.get_vocab()
    stop, pad = vocabulary[STOP_TOKEN], vocabulary[PAD_TOKEN]
    config = _config(spec, _vocab_size(spec, tokenizer), stop, pad)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=[stop, pad], pad_token_id=pad)
    with without_progress_bars():
        model.save_pretrained(out_dir)
    save_tokenizer(tokenizer, out_dir)
    _sort_keys(out_dir)
    return out_dir


def _tokenizer(
    spec: ScratchModel, texts: Iterable[str] | None, added_tokens: Iterable[str]
) -> "PreTrainedTokenizerFast":
    if spec.tokenizer is not None:
        return adopt_tokenizer(Path(spec.tokenizer), spec.max_position_embeddings, added_tokens)
    if texts is None:
        raise UsageError(
            "a model from scratch needs texts or a tokenizer",
            where="model.scratch",
            do="give texts, or set model.scratch.tokenizer",
        )
    return train_tokenizer(
        texts,
        spec.vocab_size,
        spec.max_position_embeddings,
        added_tokens,
        word_pattern=spec.word_pattern,
    )


def _vocab_size(spec: ScratchModel, tokenizer: "PreTrainedTokenizerFast") -> int:
    if spec.tokenizer is None:
        return len(tokenizer)
    return -(-len(tokenizer) // _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE


def _config(spec: ScratchModel, vocab_size: int, stop: int, pad: int) -> "PreTrainedConfig":
    from transformers import AutoConfig

    head_dim = spec.head_dim or spec.hidden_size // spec.num_attention_heads
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_hidden_layers,
        "num_attention_heads": spec.num_attention_heads,
        "num_key_value_heads": spec.num_key_value_heads,
        "head_dim": head_dim,
        "max_position_embeddings": spec.max_position_embeddings,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "initializer_range": spec.initializer_range,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
        "bos_token_id": None,
        "eos_token_id": stop,
        "pad_token_id": pad,
    }
    return AutoConfig.for_model(spec.architecture, **fields)


def _check_shape(spec: ScratchModel) -> None:
    problems = []
    if spec.head_dim is None and spec.hidden_size % spec.num_attention_heads:
        problems.append("hidden_size is no multiple of num_attention_heads and head_dim is open")
    if spec.num_attention_heads % spec.num_key_value_heads:
        problems.append("num_attention_heads is not a multiple of num_key_value_heads")
    if (spec.head_dim or spec.hidden_size // spec.num_attention_heads) % 2:
        problems.append("the size of one head is odd; rotary positions turn pairs")
    if spec.word_pattern is not None:
        problems += _pattern_problems(spec.word_pattern)
    if problems:
        raise UsageError(
            "this shape of a model is impossible",
            where="model.scratch",
            found="\n".join(problems),
            do="change these numbers in the recipe",
        )


def _pattern_problems(pattern: str) -> list[str]:
    from tokenizers import Regex

    try:
        Regex(pattern)
    except Exception as err:  # the library raises no narrower type
        return [f"word_pattern is no regular expression: {err}"]
    return []


def _sort_keys(folder: Path) -> None:
    """Write the configurations with sorted keys, so that equal models have equal bytes."""
    for name in ("config.json", "generation_config.json"):
        write_json(folder / name, read_json(folder / name))
