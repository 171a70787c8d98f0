"""Bottleneck adapters: after each feed-forward part, x + W2 gelu(W1 x + b1) + b2.

W2 and b2 start at zero, so that the fresh model answers as the base does. The curve in the middle
is why no weight of the base can take an adapter in: it can't be merged.

Source: Houlsby et al. 2019 (arXiv:1902.00751); one adapter a block, as in Pfeiffer et al. 2020
(arXiv:2005.00247).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners.blocks import decoder_blocks, feed_forward, stream_width


class Bottleneck(nn.Module):
    """A narrow layer beside a residual path.

    Args:
        width: of the residual stream.
        length: of the narrow layer.
        device: where its weights are made.
    """

    def __init__(self, width: int, length: int, device: torch.device) -> None:
        super().__init__()
        self.down = nn.Linear(width, length, device=device, dtype=torch.float32)
        self.up = nn.Linear(length, width, device=device, dtype=torch.float32)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return x and what the narrow layer adds to it, in the type of x."""
        inner = functional.gelu(self.down(x.to(self.down.weight.dtype)))
        return x + self.up(inner).to(x.dtype)


def add_adapters(model: nn.Module, section: TunerSection) -> nn.Module:
    """Return the model with an adapter in each block; nothing but these is trainable.

    Raises:
        UsageError: blocks or their feed-forward parts were not found.
    """
    model.requires_grad_(False)
    _, blocks = decoder_blocks(model)
    width = stream_width(model)
    for block in blocks:
        part = feed_forward(block)
        device = next(block.parameters()).device
        part.add_module("adapter", Bottleneck(width, section.adapter_length, device))
        part.register_forward_hook(_through_adapter)
    return model


def _through_adapter(part: Any, _inputs: Any, output: Any) -> Any:
    # Mixtures of experts also return the router's choices.
    if isinstance(output, tuple):
        return (part.adapter(output[0]), *output[1:])
    return part.adapter(output)
