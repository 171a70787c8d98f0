"""Going on with an adapter that was trained before: its weights and its shape, nothing else.

The shape is the adapter's own. A setting of the section that says otherwise is refused; one that
is left at its default says nothing.
"""

from pathlib import Path
from typing import Any

from torch import nn

from swiftcore.errors import UsageError
from swiftcore.models.files import ADAPTER_CONFIG, read_json
from swiftcore.models.loading import put_adapter
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners import targets
from swiftcore.tuners.kinds import KINDS
from swiftcore.tuners.own import KIND_KEY, is_own_folder, load_own
from swiftcore.tuners.peft_kinds import peft_settings, settle_types
from swiftcore.tuners.shifted_attention import attend_in_groups

# Settings that say together which modules are adapted, and those that name more to train.
_TARGETS = ("target_modules", "target_regex", "freeze_llm", "freeze_vit", "freeze_aligner")
_BESIDE = ("modules_to_save", "target_parameters")


def continue_adapter(model: Any, section: TunerSection, adapter: Path) -> nn.Module:
    """Return the model with a saved adapter over it, which is trained further.

    Args:
        model: the base; changed in place.
        section: the tuner's settings, which must not disagree with the adapter.
        adapter: its folder.

    Raises:
        UsageError: the adapter is another tuner's, was trained with other settings, does not fit
            this model, or can't be trained further.
    """
    config = read_json(adapter / ADAPTER_CONFIG)
    if is_own_folder(adapter):
        _refuse_kind(config[KIND_KEY], section.train_type, adapter)
        _refuse_changes(_own_changes(config["settings"], section), adapter)
        return load_own(model, adapter, is_trainable=True)
    _refuse_kind(config["peft_type"], _peft_type(section), adapter)
    if section.train_type == "adalora":
        raise UsageError(
            "AdaLoRA's ranks are cut already, and the record of what mattered is gone",
            where="model.adapters",
            found=adapter,
            do="merge the adapter, and train another over the result",
        )
    _refuse_changes(_peft_changes(model, config, section), adapter)
    adapted = put_adapter(model, Path(str(model.name_or_path)), adapter, is_trainable=True)
    settle_types(adapted, section)
    if section.train_type == "longlora":
        attend_in_groups(adapted.get_base_model())
    return adapted


def _peft_type(section: TunerSection) -> str:
    import peft

    if KINDS[section.train_type].home != "peft":
        return section.train_type
    name, values = peft_settings(section, 1_000_000)
    return str(getattr(peft, name)(**values).peft_type.value)


def _own_changes(stored: dict[str, Any], section: TunerSection) -> dict[str, Any]:
    """Return the adapter's values of settings that the section gives otherwise."""
    defaults = TunerSection(train_type=section.train_type).model_dump()
    given = section.model_dump(exclude_defaults=True, exclude={"train_type"})
    before = {name: stored.get(name, defaults[name]) for name in given}
    return {name: before[name] for name, value in given.items() if before[name] != value}


def _peft_changes(model: Any, config: dict[str, Any], section: TunerSection) -> dict[str, Any]:
    fresh = TunerSection(train_type=section.train_type)
    _, given = peft_settings(section, 1_000_000)
    _, defaults = peft_settings(fresh, 1_000_000)
    asked = {name: value for name, value in given.items() if value != defaults[name]}
    asked |= section.peft_args
    changes = {name: config.get(name) for name, value in asked.items() if config.get(name) != value}
    if any(getattr(section, name) != getattr(fresh, name) for name in _TARGETS):
        chosen = targets.target_modules(model, section)
        if _names(chosen) != _names(config.get("target_modules")):
            changes["target_modules"] = config.get("target_modules")
    for name in _BESIDE:
        if not set(getattr(section, name)) <= set(config.get(name) or ()):
            changes[name] = config.get(name)
    return changes


def _names(written: list[str] | str | None) -> set[str]:
    return {written} if isinstance(written, str) else set(written or ())


def _refuse_kind(stored: str, asked: str, adapter: Path) -> None:
    if stored.lower() != asked.lower():
        raise UsageError(
            "the adapter was made by another tuner",
            where="tuner.train_type",
            found=f"{adapter.name}: {stored.lower()}",
            expected=asked.lower(),
            do="set tuner.train_type to the adapter's, or merge it and train over the result",
        )


def _refuse_changes(changes: dict[str, Any], adapter: Path) -> None:
    if changes:
        shown = ", ".join(f"{name} {value}" for name, value in sorted(changes.items()))
        raise UsageError(
            "the adapter that training goes on with was made with other settings",
            where="tuner",
            found=f"{adapter.name}: {shown}",
            expected="the same, or nothing, for then they are the adapter's",
            do="leave these settings out; a fresh tuner goes over the merged model",
        )
