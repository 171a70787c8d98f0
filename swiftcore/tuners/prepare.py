"""Making a model ready for training: what is trainable, and what is not."""

from dataclasses import dataclass

from torch import nn

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners.freezing import apply_freezing
from swiftcore.tuners.lora import add_lora

_LORA_ONLY = ("target_regex", "modules_to_save", "use_rslora", "use_dora")
_FULL_ONLY = (
    "freeze_parameters",
    "freeze_parameters_regex",
    "freeze_parameters_ratio",
    "trainable_parameters",
    "trainable_parameters_regex",
)


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters; a weight that two modules share counts once."""

    trainable: int
    total: int


def prepare_model(model: nn.Module, section: TunerSection) -> nn.Module:
    """Return the model with exactly the parameters trainable that the section names.

    LoRA wraps the model with peft; `full` changes `requires_grad` in place. The meta device works.

    Raises:
        UsageError: a setting belongs to the other tuner, names nothing in this model, or leaves
            nothing to train.
    """
    _refuse_idle_settings(section)
    prepared = add_lora(model, section) if section.train_type == "lora" else model
    if section.train_type == "full":
        apply_freezing(model, section)
    if count_parameters(prepared).trainable == 0:
        raise UsageError(
            "nothing is left to train",
            where="tuner",
            do="freeze less, or name parameters in tuner.trainable_parameters",
        )
    return prepared


def count_parameters(model: nn.Module) -> ParameterCount:
    """Return how many parameters a model has and how many of them are trained."""
    parameters = list(model.parameters())
    return ParameterCount(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(p.numel() for p in parameters),
    )


def _refuse_idle_settings(section: TunerSection) -> None:
    names = _FULL_ONLY if section.train_type == "lora" else _LORA_ONLY
    idle = [name for name in names if getattr(section, name)]
    if idle:
        raise UsageError(
            f"these settings do nothing with train_type {section.train_type}",
            where="tuner",
            found=", ".join(idle),
            do="remove them, or change tuner.train_type",
        )
