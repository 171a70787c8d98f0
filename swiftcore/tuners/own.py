"""Tuners of our own: how they are put on a model, saved beside peft's files, and loaded.

They change the model in place. An adapter folder of theirs has the two files of any other:
`adapter_config.json`, with the settings that make the same shape again, and the trained weights by
the names they have in the changed model.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from swiftcore.errors import UsageError
from swiftcore.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json, write_json
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners import targets
from swiftcore.tuners.adapter import add_adapters
from swiftcore.tuners.kinds import KINDS
from swiftcore.tuners.llamapro import add_blocks
from swiftcore.tuners.reft import add_interventions

# Where adapter_config.json of peft has peft_type.
KIND_KEY = "swift_tuner"
_SECTION = "swift_tuner_section"

_ADD: dict[str, Callable[[nn.Module, TunerSection], nn.Module]] = {
    "adapter": add_adapters,
    "llamapro": add_blocks,
    "reft": add_interventions,
}


def add_own(model: nn.Module, section: TunerSection) -> nn.Module:
    """Return the model with a tuner of ours, and `modules_to_save` trained whole beside it.

    Raises:
        UsageError: the tuner has no place in this model, or a module to save is not in it.
    """
    saved = targets.named_modules(model, section.modules_to_save, "tuner.modules_to_save")
    changed = _ADD[section.train_type](model, section)
    for name, module in changed.named_modules():
        if any(name == part or name.endswith(f".{part}") for part in saved):
            module.requires_grad_(True)
    setattr(changed, _SECTION, section)
    return changed


def is_own(model: Any) -> bool:
    """Tell whether a model carries a tuner of ours."""
    return hasattr(model, _SECTION)


def is_own_folder(adapter: Path) -> bool:
    """Tell whether an adapter folder was written by `save_own`."""
    return KIND_KEY in read_json(adapter / ADAPTER_CONFIG)


def save_own(model: Any, folder: Path) -> None:
    """Write the trained weights and the settings that make a place for them."""
    from safetensors.torch import save_file

    section: TunerSection = getattr(model, _SECTION)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: p.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = {
        KIND_KEY: section.train_type,
        "settings": section.model_dump(exclude_defaults=True, exclude={"train_type"}),
        "base_model_name_or_path": None,
    }
    write_json(folder / ADAPTER_CONFIG, config)


def load_own(model: nn.Module, adapter: Path, *, is_trainable: bool = False) -> nn.Module:
    """Return a base model with a saved tuner of ours on it.

    Without `is_trainable` it is in evaluation mode, and nothing is trained.

    Raises:
        UsageError: the weights don't fit this base, or the tuner's name is unknown.
    """
    from safetensors.torch import load_file

    config = read_json(adapter / ADAPTER_CONFIG)
    name = config[KIND_KEY]
    if name not in _ADD:
        raise UsageError(
            "the adapter was made by an unknown tuner",
            where=adapter / ADAPTER_CONFIG,
            found=name,
            expected=", ".join(_ADD),
            do="use the version that trained it",
        )
    changed = add_own(model, TunerSection(train_type=name, **config["settings"]))
    weights = load_file(adapter / ADAPTER_WEIGHTS)
    places = {name: p for name, p in changed.named_parameters() if p.requires_grad}
    odd = sorted(set(weights).symmetric_difference(places))
    odd += [
        name
        for name in sorted(set(weights) & set(places))
        if weights[name].shape != places[name].shape
    ]
    if odd:
        raise UsageError(
            "the adapter does not fit this base model",
            where=adapter,
            found=f"{len(odd)} tensors without a partner of their shape: {', '.join(odd[:3])}",
            expected="the base model that the adapter was trained on",
            do="name that base model, or train the adapter again on this one",
        )
    changed.load_state_dict(weights, strict=False)
    return changed if is_trainable else changed.requires_grad_(False).eval()


def merge_own(model: nn.Module) -> nn.Module:
    """Return a plain model that answers as the tuned one does.

    Raises:
        UsageError: no plain model does.
    """
    name = getattr(model, _SECTION).train_type
    if not KINDS[name].merges:
        raise UsageError(
            f"a tuner of type {name} can't be folded into its base",
            where="merge",
            found=KINDS[name].trains,
            expected=", ".join(kind.name for kind in KINDS.values() if kind.merges),
            do="serve base and adapter together, or train with a tuner that merges",
        )
    delattr(model, _SECTION)
    return model
