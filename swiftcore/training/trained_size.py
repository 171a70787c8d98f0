"""How many parameters a tuner trains, from the shapes of the weights alone."""

import re
from dataclasses import dataclass

from swiftcore.models.shape import Matrix, ModelShape
from swiftcore.recipe.sections import TunerSection

_EXACT = ("lora", "longlora", "adalora")
_FIRST_BLOCK = re.compile(r"(^|\.)(layers|h|blocks)\.0\.")


@dataclass(frozen=True)
class TrainedSize:
    """Number of trained entries.

    Args:
        entries: how many.
        exact: false where they are those of a LoRA of the same rank, as a bound.
    """

    entries: int
    exact: bool = True


def trained_size(shape: ModelShape, tuner: TunerSection) -> TrainedSize:
    """Return how many parameters training would change."""
    saved = sum(t.entries for t in shape.tensors if _named(t, tuner.modules_to_save))
    if tuner.train_type == "full":
        return TrainedSize(_full(shape, tuner), not tuner.freeze_parameters_ratio)
    if tuner.train_type == "llamapro":
        block = sum(t.entries for t in shape.tensors if _FIRST_BLOCK.search(t.name))
        return TrainedSize(tuner.llamapro_num_new_blocks * block + saved)
    if tuner.train_type == "adapter":
        width, hidden = tuner.adapter_length, shape.number("hidden_size", "n_embd")
        layers = shape.number("num_hidden_layers", "n_layer")
        return TrainedSize(layers * (2 * width * hidden + width + hidden) + saved)
    if tuner.train_type == "reft":
        return TrainedSize(_interventions(shape, tuner) + saved)
    if tuner.train_type == "longlora":
        saved += sum(t.entries for t in shape.tensors if t.is_embedding or "norm" in t.module)
    adapted = [t for t in shape.tensors if _adapted(t, tuner)]
    rank = tuner.adalora_init_r if tuner.train_type == "adalora" else tuner.lora_rank
    entries = sum(rank * sum(t.shape) for t in adapted)
    if tuner.train_type == "adalora":
        entries += rank * len(adapted)
    if tuner.use_dora:
        entries += sum(t.shape[0] for t in adapted)
    plain = tuner.lora_bias == "none" and not tuner.target_parameters
    return TrainedSize(entries + saved, tuner.train_type in _EXACT and plain)


def _interventions(shape: ModelShape, tuner: TunerSection) -> int:
    rank, hidden = tuner.reft_rank, shape.number("hidden_size", "n_embd")
    blocks = shape.number("num_hidden_layers", "n_layer")
    constant = tuner.reft_intervention_type in ("ConsreftIntervention", "LobireftIntervention")
    each = rank * hidden + rank + (0 if constant else rank * hidden)
    if tuner.reft_args.get("add_bias"):
        each += rank
    return each * (blocks if tuner.reft_layers is None else len(set(tuner.reft_layers)))


def _full(shape: ModelShape, tuner: TunerSection) -> int:
    total = 0
    for tensor in shape.tensors:
        frozen = _matches(tensor, tuner.freeze_parameters, tuner.freeze_parameters_regex)
        trained = _matches(tensor, tuner.trainable_parameters, tuner.trainable_parameters_regex)
        share = 1.0 if trained else 0.0 if frozen else 1 - tuner.freeze_parameters_ratio
        total += round(share * tensor.entries)
    return total


def _matches(tensor: Matrix, prefixes: list[str], regex: str | None) -> bool:
    if any(tensor.name.startswith(prefix) for prefix in prefixes):
        return True
    return bool(regex and re.search(regex, tensor.name))


def _adapted(tensor: Matrix, tuner: TunerSection) -> bool:
    if len(tensor.shape) != 2 or not tensor.name.endswith(".weight"):
        return False
    if tuner.target_regex:
        return bool(re.fullmatch(tuner.target_regex, tensor.module))
    if "all-linear" in tuner.target_modules and tensor.is_linear:
        return True
    if "all-embedding" in tuner.target_modules and tensor.is_embedding:
        return True
    return _named(tensor, tuner.target_modules)


def _named(tensor: Matrix, names: list[str]) -> bool:
    return any(tensor.module == name or tensor.module.endswith(f".{name}") for name in names)
