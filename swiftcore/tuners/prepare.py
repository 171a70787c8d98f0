"""Making a model ready for training: what is trainable, and what is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners.continued import continue_adapter
from swiftcore.tuners.freezing import apply_freezing
from swiftcore.tuners.kinds import KINDS
from swiftcore.tuners.own import add_own
from swiftcore.tuners.peft_kinds import add_peft
from swiftcore.tuners.quantized import settle_quantized

# A recipe with a rank may be tried with all weights instead.
_TOLERATED = {"full": frozenset({"lora_rank", "lora_alpha", "lora_dropout", "target_modules"})}


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters; a weight that two modules share counts once."""

    trainable: int
    total: int


def prepare_model(
    model: nn.Module,
    section: TunerSection,
    *,
    total_steps: int = 1000,
    rows: Sequence[dict[str, Any]] | None = None,
    adapter: Path | None = None,
) -> nn.Module:
    """Return the model with exactly the parameters trainable that the section names.

    A tuner of peft wraps the model; ours and `full` change it in place. The meta device works.

    Args:
        model: the base; changed in place.
        section: which tuner, and its settings.
        total_steps: optimizer steps of the run, by which AdaLoRA plans its ranks.
        rows: encoded training rows, which the starts lora-ga and eva look at.
        adapter: folder of an adapter to go on with, instead of a fresh one.

    Raises:
        UsageError: a setting belongs to another tuner, names nothing in this model, or leaves
            nothing to train.
    """
    _refuse_idle_settings(section)
    settle_quantized(model, section)
    prepared = model
    if adapter is not None:
        prepared = continue_adapter(model, section, adapter)
    elif section.train_type == "full":
        apply_freezing(model, section)
    elif KINDS[section.train_type].home == "swift":
        prepared = add_own(model, section)
    else:
        prepared = add_peft(model, section, total_steps, rows)
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
    name = section.train_type
    read = {"train_type", "tuner_backend", *KINDS[name].settings, *_TOLERATED.get(name, ())}
    idle = sorted(set(section.model_dump(exclude_defaults=True)) - read)
    if idle:
        raise UsageError(
            f"these settings do nothing with train_type {name}",
            where="tuner",
            found=", ".join(idle),
            do="remove them, or change tuner.train_type",
        )
