"""LLaMA Pro: new blocks between the old ones, which alone are trained.

A new block is a copy of the one before it whose two output projections are zero, so that it passes
on what it gets and the fresh model answers as the base does. Merged, the result is a plain model
with more layers.

Source: Wu et al. 2024, LLaMA Pro (arXiv:2401.02415).
"""

import copy
from typing import Any

import torch
from torch import nn

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners.blocks import decoder_blocks

# Last layers of attention and of the feed-forward part, in the order they are looked for.
_OUTPUTS = (
    "o_proj",
    "down_proj",
    "c_proj",
    "out_proj",
    "wo",
    "dense_4h_to_h",
    "fc2",
    "w2",
    "dense",
)


def add_blocks(model: nn.Module, section: TunerSection) -> nn.Module:
    """Return the model with new blocks, changed in place; nothing but these is trainable.

    Raises:
        UsageError: the numbers don't divide, or a block's output projections were not found.
    """
    name, blocks = decoder_blocks(model)
    origins = _origins(len(blocks), section)
    model.requires_grad_(False)
    grown = nn.ModuleList()
    for place, (origin, is_new) in enumerate(origins):
        block = _passing(blocks[origin]) if is_new else blocks[origin]
        for module in block.modules():
            # The place of its keys and values in the cache.
            if isinstance(getattr(module, "layer_idx", None), int):
                vars(module)["layer_idx"] = place
        grown.append(block)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, grown)
    _grow_config(getattr(model, "config", None), [origin for origin, _ in origins])
    return model


def _origins(num_blocks: int, section: TunerSection) -> list[tuple[int, bool]]:
    """Return for each block of the grown model the old block it is or copies, and which it is."""
    new = section.llamapro_num_new_blocks
    groups = section.llamapro_num_groups or new
    if num_blocks % groups or new % groups:
        raise UsageError(
            "old and new blocks must divide evenly into groups",
            where="tuner.llamapro_num_groups",
            found=f"{num_blocks} old and {new} new blocks in {groups} groups",
            expected=f"a divisor of {num_blocks} and of the new blocks",
            do="change tuner.llamapro_num_new_blocks or tuner.llamapro_num_groups",
        )
    size, copies = num_blocks // groups, new // groups
    found = []
    for group in range(groups):
        last = (group + 1) * size - 1
        found += [(place, False) for place in range(group * size, last + 1)]
        found += [(last, True)] * copies
    return found


def _passing(block: nn.Module) -> nn.Module:
    """Return a trainable copy of a block that adds nothing to the residual stream."""
    fresh = copy.deepcopy(block)
    outputs = _outputs(fresh)
    if len(outputs) != 2:
        raise UsageError(
            "the output projections of attention and feed-forward part were not found",
            where="tuner.train_type",
            found=", ".join(name for name, _ in fresh.named_modules() if name),
            expected="one of " + ", ".join(_OUTPUTS) + " in each",
            do="use another tuner for this model",
        )
    with torch.no_grad():
        for layer in outputs:
            for parameter in layer.parameters():
                parameter.zero_()
    fresh.requires_grad_(True)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in fresh.parameters()):
        # Small updates vanish in 16 bits; the stream keeps the type it came with.
        fresh.float()
        fresh.register_forward_hook(_in_type_of_input)
    return fresh


def _outputs(block: nn.Module) -> list[nn.Module]:
    """Return the output projection of each child that has one."""
    found = []
    for _, child in block.named_children():
        linears = {
            name.rpartition(".")[2]: module
            for name, module in child.named_modules()
            if isinstance(module, nn.Linear)
        }
        found += [linears[name] for name in _OUTPUTS if name in linears][:1]
    return found


def _in_type_of_input(_block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    if isinstance(output, tuple):
        return (output[0].to(inputs[0].dtype), *output[1:])
    return output.to(inputs[0].dtype)


def _grow_config(config: Any, origins: list[int]) -> None:
    """Write the new number of blocks, and stretch whatever is listed block by block."""
    if config is None:
        return
    before = config.num_hidden_layers
    config.num_hidden_layers = len(origins)
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == before:
            setattr(config, name, [value[origin] for origin in origins])
