"""Groups of parameters: with decay or without, LoRA's B (LoRA+), and towers with a rate each.

Source: Hayou et al. 2024, LoRA+ (arXiv:2402.12354).
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from swiftcore.errors import UsageError
from swiftcore.models.towers import Tower, find_towers
from swiftcore.training.forward import unwrapped

Group = dict[str, Any]
# peft's names of the second matrix, of linear layers and of embeddings.
_SECOND_MATRICES = ("lora_B", "lora_embedding_B")


@dataclass(frozen=True)
class Rates:
    """Peak learning rates.

    Args:
        base: of everything that has no rate of its own.
        second_matrix: factor for LoRA's B.
        towers: of parts of a multimodal model.
    """

    base: float
    second_matrix: float = 1.0
    towers: dict[Tower, float] = field(default_factory=dict)


def parameter_groups(
    model: Any, rates: Rates, *, weight_decay: float, decayed: Collection[str]
) -> list[Group]:
    """Return the trained parameters, in one group for each rate and decay that occurs.

    The groups with the base rate come first: the rate of the first group is the one that is logged.

    Args:
        model: a prepared model.
        rates: the peak rates.
        weight_decay: of the parameters named in `decayed`; the others have none.
        decayed: names of parameters.

    Raises:
        UsageError: a tower has a rate, and the model has no towers, or none of it is trained.
    """
    part_of = _parts(model) if rates.towers else {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {
        (rates.base, weight_decay): [],
        (rates.base, 0.0): [],
    }
    trained: set[str] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = part_of.get(id(parameter), "llm")
        trained.add(part)
        rate = rates.towers.get(part, rates.base)
        if any(f".{matrix}." in name for matrix in _SECOND_MATRICES):
            rate *= rates.second_matrix
        groups.setdefault((rate, weight_decay if name in decayed else 0.0), []).append(parameter)
    for part in rates.towers:
        if part not in trained:
            raise _nothing_at_rate(part)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
        if parameters
    ]


def _parts(model: Any) -> dict[int, Tower]:
    """Return the part of each parameter, by its id: tuners rename parameters and keep them."""
    base = unwrapped(model)
    towers = find_towers(base)
    if towers is None:
        raise UsageError(
            "only a multimodal model has an encoder and an aligner",
            where="train.vit_lr, train.aligner_lr",
            found=f"a text model, {type(base).__name__}",
            do="remove these rates; train.learning_rate is the only one",
        )
    return {id(parameter): towers.part(name) for name, parameter in base.named_parameters()}


def _nothing_at_rate(part: Tower) -> UsageError:
    return UsageError(
        "a learning rate is given for a part that is not trained",
        where=f"train.{part}_lr",
        found=f"tuner.freeze_{part} is true",
        do=f"set tuner.freeze_{part}: false, or remove train.{part}_lr",
    )
