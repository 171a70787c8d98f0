"""LISA: full training of a few blocks at a time, drawn anew after some steps.

Embeddings, head and all else outside the blocks are always trained. Which blocks are drawn follows
from seed and step alone. A block's optimizer state is dropped when it comes to rest, and begins
anew when it is drawn again, so that memory is that of the trained blocks.

Source: Pan et al. 2024, LISA (arXiv:2403.17919), algorithm 1.
"""

import random
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback

from swiftcore.errors import UsageError
from swiftcore.training.job import TrainJob
from swiftcore.training.optimizers.joined import forget
from swiftcore.tuners.blocks import decoder_blocks


class BlockTurns(TrainerCallback):
    """Lets blocks take turns in being trained.

    Args:
        blocks: of the model.
        num_trained: blocks trained at a time.
        interval: optimizer steps until others are drawn.
        seed: of the draw.

    Raises:
        UsageError: no block would ever rest.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], num_trained: int, interval: int, seed: int
    ) -> None:
        if num_trained >= len(blocks):
            raise UsageError(
                "LISA would train all blocks all the time",
                where="tuner.lisa_activated_layers",
                found=num_trained,
                expected=f"fewer than the model's {len(blocks)} blocks",
                do="lower it; 2 is usual, or 8 for large models",
            )
        # What a freeze rule excluded stays excluded.
        self._blocks = [[p for p in block.parameters() if p.requires_grad] for block in blocks]
        self._num_trained = num_trained
        self._interval = interval
        self._seed = seed
        self._trained: set[int] | None = None

    def drawn(self, step: int) -> set[int]:
        """Return the blocks that the optimizer step after `step` others trains."""
        rng = random.Random(f"lisa {self._seed} {step // self._interval}")
        return set(rng.sample(range(len(self._blocks)), self._num_trained))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the drawn blocks their turn."""
        drawn = self.drawn(state.global_step)
        if drawn == self._trained:
            return
        self._trained = drawn
        for number, parameters in enumerate(self._blocks):
            for parameter in parameters:
                parameter.requires_grad_(number in drawn)
            if number not in drawn:
                forget(kwargs["optimizer"], parameters)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count every block as trained again."""
        for parameters in self._blocks:
            for parameter in parameters:
                parameter.requires_grad_(True)


def lisa_callbacks(model: Any, job: TrainJob) -> list[TrainerCallback]:
    """Return the callback of LISA, when the job asks for it.

    Raises:
        UsageError: the model has too few blocks, or none that can be told.
    """
    tuner = job.tuner
    if not tuner.lisa_activated_layers:
        return []
    _, blocks = decoder_blocks(model.get_decoder())
    return [
        BlockTurns(
            list(blocks), tuner.lisa_activated_layers, tuner.lisa_step_interval, job.train.seed
        )
    ]
