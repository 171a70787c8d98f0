"""Beginning with the weights of a checkpoint and nothing else that it holds."""

from typing import Any

from transformers import Trainer

from swiftcore.training.checkpoints import Checkpoint
from swiftcore.training.resuming import require_fitting_weights


class WeightsTaker(Trainer):
    """Leaves optimizer and random state where they are, for `train.resume_only_model`."""

    _takes_weights_alone = False

    def resume_weights(self, checkpoint: Checkpoint) -> None:
        """Train from a checkpoint's weights, and from its place in the rows where it has one.

        Raises:
            UsageError: they are another model's.
        """
        require_fitting_weights(checkpoint.path, self.model)
        if not checkpoint.step:
            self._load_from_checkpoint(str(checkpoint.path))
            self.train()
            return
        self._takes_weights_alone = True
        self.train(resume_from_checkpoint=str(checkpoint.path))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self._takes_weights_alone:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        scheduler: Any = self.lr_scheduler
        for _ in range(self.state.global_step):
            scheduler.step()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if not self._takes_weights_alone:
            super()._load_rng_state(checkpoint)
