"""Tuners over frozen weights of 4 or 8 bits (QLoRA): which can be, and what they need.

Source: Dettmers et al. 2023, QLoRA (arXiv:2305.14314).
"""

from typing import Any

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TunerSection

# Those whose layers in peft know how to read packed weights, or never read them.
_KINDS = ("lora", "longlora", "adalora", "ia3", "randlora", "road", "hira", "pvera")
_STARTS = ("true", "false", "gaussian", "eva")
_INT8 = "Int8Params"


def settle_quantized(model: Any, section: TunerSection) -> None:
    """Make a quantized model ready for a tuner; other models are left alone.

    Raises:
        UsageError: the tuner would read or train the packed weights.
    """
    if getattr(model, "hf_quantizer", None) is None:
        return
    if section.train_type not in _KINDS:
        raise _refusal(
            "tuner.train_type", section.train_type, ", ".join(_KINDS), "train with one of these"
        )
    if section.init_weights not in _STARTS:
        raise _refusal(
            "tuner.init_weights",
            section.init_weights,
            ", ".join(_STARTS),
            "choose one of these starts, for the others change the weights",
        )
    if section.use_dora and any(type(p).__name__ == _INT8 for p in model.parameters()):
        raise _refusal(
            "tuner.use_dora",
            "8-bit weights, whose columns have no norm here",
            "4-bit weights",
            "set quant_bits to 4, or leave use_dora out",
        )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # An evaluation on a CPU would repack the weights, and gradients would end there.
            module.support_avx512bf16_for_cpu = False


def _refusal(where: str, found: str, expected: str, do: str) -> UsageError:
    return UsageError(
        "this does not go over quantized weights",
        where=where,
        found=found,
        expected=expected,
        do=do,
    )
