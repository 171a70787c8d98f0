"""What gradients and optimizer state take in memory, by the optimizer a recipe chooses."""

import re

from swiftcore.models.shape import Matrix, ModelShape
from swiftcore.recipe.sections import TrainSection, TunerSection

_BLOCK = re.compile(r"(^|\.)(layers|h|blocks)\.\d+\.")
# Numbers kept for each trained one; AdamW keeps two. Adafactor keeps a row and a column.
_NUMBERS = (
    ("adafactor", 0),
    ("ademamix", 3),
    ("lion", 1),
    ("schedule_free_sgd", 1),
    ("sgd", 0),
    ("adagrad", 1),
    ("rmsprop", 1),
)
_OF_ADAM = 2


def trained_at_once(shape: ModelShape, tuner: TunerSection, trained: int) -> int:
    """Return the parameters that have a gradient at the same time: with LISA, few blocks do."""
    active = tuner.lisa_activated_layers
    layers = shape.number("num_hidden_layers", "n_layer")
    if not active or not layers:
        return trained
    blocks = sum(tensor.entries for tensor in shape.tensors if _BLOCK.search(tensor.name))
    return trained - blocks + blocks * min(active, layers) // layers


def state_bytes(
    shape: ModelShape, train: TrainSection, tuner: TunerSection, held: int, entry_bytes: int
) -> int:
    """Return the bytes of optimizer state.

    Args:
        shape: of the model.
        train: says which optimizer.
        tuner: says whether gradients are projected.
        held: parameters that are trained at once.
        entry_bytes: of one of them.
    """
    name = train.optim or ""
    numbers = next((count for part, count in _NUMBERS if part in name), _OF_ADAM)
    if "sgd" in name and "momentum" in (train.optim_args or {}):
        numbers = max(numbers, 1)
    size = 1 if name.endswith("8bit") else entry_bytes
    if not tuner.use_galore:
        return held * numbers * size
    projected = [tensor for tensor in shape.linear() if _BLOCK.search(tensor.name)]
    plain = held - sum(tensor.entries for tensor in projected)
    low = sum(_low_rank_numbers(tensor, tuner.galore_rank, numbers) for tensor in projected)
    return max(plain, 0) * numbers * size + low * entry_bytes


def _low_rank_numbers(tensor: Matrix, rank: int, numbers: int) -> int:
    """Return a projection and the state of what is left of a gradient behind it."""
    short, long = min(tensor.shape), max(tensor.shape)
    rank = min(rank, short)
    return rank * short + numbers * rank * long
