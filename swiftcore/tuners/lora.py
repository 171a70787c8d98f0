"""LoRA through peft: where the matrices go and how they start.

Source: Hu et al. 2021, LoRA (arXiv:2106.09685); Kalajdzievski 2023, rsLoRA (arXiv:2312.03732);
Liu et al. 2024, DoRA (arXiv:2402.09353).
"""

from typing import Literal

import torch
from torch import nn

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners.freezing import compile_regex

ALL_LINEAR = "all-linear"
# Modules that share one weight in models with tied embeddings.
_EMBEDDINGS = frozenset({"embed_tokens", "lm_head"})
# Output heads: they map to a vocabulary or a score, and are not part of "all-linear".
_HEADS = ("lm_head", "score", "v_head", "classifier")


def add_lora(model: nn.Module, section: TunerSection) -> nn.Module:
    """Return the model wrapped by peft with fresh LoRA matrices, kept in float32.

    Raises:
        UsageError: a target or a module to save is not in the model.
    """
    from peft import LoraConfig, get_peft_model

    _require_modules(model, section.modules_to_save, "tuner.modules_to_save")
    tied = bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))
    saves_embeddings = not _EMBEDDINGS.isdisjoint(section.modules_to_save)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=section.lora_rank,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        bias=section.lora_bias,
        use_rslora=section.use_rslora,
        use_dora=section.use_dora,
        init_lora_weights=_init(section.init_weights),
        target_modules=target_modules(model, section),
        modules_to_save=section.modules_to_save or None,
        ensure_weight_tying=tied and saves_embeddings,
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
    return adapted


def target_modules(model: nn.Module, section: TunerSection) -> list[str] | str:
    """Return what LoRA adapts: sorted names of modules, or the regex of the section.

    Raises:
        UsageError: a name or the regex matches no module.
    """
    names = [name for name, _ in model.named_modules()]
    if section.target_regex:
        pattern = compile_regex(section.target_regex, "tuner.target_regex")
        if not any(pattern.fullmatch(name) for name in names):
            raise _no_such_module("tuner.target_regex", section.target_regex, model)
        return section.target_regex
    targets = [name for name in section.target_modules if name != ALL_LINEAR]
    _require_modules(model, targets, "tuner.target_modules")
    if ALL_LINEAR in section.target_modules:
        targets += linear_names(model)
    return sorted(set(targets))


def linear_names(model: nn.Module) -> list[str]:
    """Return the last name parts of all linear modules but the output heads."""
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if "linear" in type(module).__name__.lower()
    }
    return sorted(found.difference(_HEADS))


def _require_modules(model: nn.Module, targets: list[str], where: str) -> None:
    names = [name for name, _ in model.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise _no_such_module(where, target, model)


def _init(name: Literal["true", "false", "gaussian"]) -> bool | Literal["gaussian"]:
    return "gaussian" if name == "gaussian" else name == "true"


def _no_such_module(where: str, found: str, model: nn.Module) -> UsageError:
    return UsageError(
        "the model has no such module",
        where=where,
        found=found,
        expected=", ".join([ALL_LINEAR, *linear_names(model)]),
        do="name modules of this model",
    )
