"""Finding the decoder blocks of a model, and what they consist of."""

from typing import Any

from torch import nn

from swiftcore.errors import UsageError

_MLP_NAMES = ("mlp", "feed_forward", "ffn", "block_sparse_moe")


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of the model's blocks: its longest list of equal modules.

    Raises:
        UsageError: there is none with the number of layers that the configuration says.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
    ]
    name, blocks = max(found, key=lambda pair: len(pair[1]), default=("", nn.ModuleList()))
    config = getattr(model, "config", None)
    expected = getattr(config, "num_hidden_layers", len(blocks))
    if not blocks or len(blocks) != expected:
        raise UsageError(
            "the decoder blocks of this model were not found",
            where="tuner.train_type",
            found=f"the longest list of equal modules has {len(blocks)}: {name or 'none'}",
            expected=f"{expected}, as config.json says",
            do="use train_type lora, which needs no blocks",
        )
    return name, blocks


def feed_forward(block: nn.Module) -> nn.Module:
    """Return the feed-forward part of a block.

    Raises:
        UsageError: it has no part of a known name.
    """
    children = dict(block.named_children())
    for name in _MLP_NAMES:
        if name in children:
            return children[name]
    raise UsageError(
        "the feed-forward part of the model's blocks was not found",
        where="tuner.train_type",
        found=", ".join(children),
        expected=" or ".join(_MLP_NAMES),
        do="use train_type lora, which needs no such part",
    )


def stream_width(model: nn.Module) -> int:
    """Return the width of the residual stream between blocks."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    return config.hidden_size
