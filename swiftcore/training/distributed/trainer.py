"""transformers' Trainer for one of several processes, each of which it takes for the only one."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from swiftcore.training.distributed.strategies import Alone, Strategy
from swiftcore.training.distributed.world import World
from swiftcore.training.objectives.objective import SILENT


class SharedTrainer(Trainer):
    """Does a strategy's work at the points of transformers' loop where it is due.

    Args:
        model: a prepared model.
        args: made by `training_arguments`.
        world: all processes of the run.
        strategy: how they train together.
        others: what transformers' Trainer takes besides.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        world: World | None = None,
        strategy: Strategy | None = None,
        **others: Any,
    ) -> None:
        self.world = world or World()
        self.strategy = strategy or Alone()
        self._weights: dict[str, Tensor] | None = None
        self._optimizer_state: dict[str, Any] | None = None
        super().__init__(model=model, args=args, **others)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        plain: Any = self.model
        self.strategy.shard(plain)
        if self.world.size > 1:
            # Processes that drew the same dropout masks would train on less noise than one.
            torch.manual_seed(self.args.seed + self.world.rank)
        return super()._prepare_for_training(*args, **kwargs)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        wrapped = super()._wrap_model(model, training=training, dataloader=dataloader)
        return self.strategy.wrap(wrapped, self) if wrapped is self.model else wrapped

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Run one forward and backward pass; a silent batch adds nothing to loss and gradient."""
        if inputs.get(SILENT, False):
            num_items_in_batch = math.inf
        with self.strategy.backward_pass(model, last=self.accelerator.sync_gradients):
            return super().training_step(model, inputs, num_items_in_batch)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        return self.strategy.gradient_norm(super()._get_grad_norm(model, grad_norm=grad_norm))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint and return when every process has written its part."""
        self._weights = self.strategy.whole_weights(self.model)
        self._optimizer_state = self.strategy.optimizer_state(self)
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.world.leads:
            super()._save_checkpoint(model, trial)
        else:
            self._save_rng_state(str(folder))
        self.strategy.save_part(folder)
        self._weights = self._optimizer_state = None
        self.world.gather(None)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict=state_dict or self._weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._optimizer_state is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        torch.save(self._optimizer_state, Path(output_dir) / OPTIMIZER_NAME)
        scheduler: Any = self.lr_scheduler
        torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        folder = Path(checkpoint) if checkpoint else None
        if folder is None or not self.strategy.load_optimizer_state(self, folder / OPTIMIZER_NAME):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        scheduler: Any = self.lr_scheduler
        scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(str(self._own(output_dir)))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(None if checkpoint is None else str(self._own(checkpoint)))

    def _own(self, folder: str) -> Path:
        """Return where in a checkpoint this process's own files are."""
        if self.world.leads:
            return Path(folder)
        return Path(folder) / f"process-{self.world.local_rank}"
