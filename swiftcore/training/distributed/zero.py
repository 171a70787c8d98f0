"""DeepSpeed ZeRO: optimizer states (1), gradients (2) and weights (3) in parts.

transformers' integration has to know of DeepSpeed before a model is loaded and hands its whole loop
over; here the engine takes the backward pass and the optimizer's step, and nothing else.
Source: https://arxiv.org/abs/1910.02054
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swiftcore.errors import TrainingFailed, UsageError
from swiftcore.recipe.sharding import deepspeed_config
from swiftcore.training.distributed.strategies import Alone
from swiftcore.training.distributed.whole import require_shardable, require_whole
from swiftcore.training.distributed.world import World
from swiftcore.training.job import TrainJob

_ENGINE_FOLDER = "deepspeed"


class ZeroRedundancy(Alone):
    """A DeepSpeed engine of one of the ZeRO stages.

    Args:
        job: for the settings and the device.
        world: all processes; those that write files get whole weights.
    """

    def __init__(self, job: TrainJob, world: World) -> None:
        require_shardable(job)
        assert job.train.deepspeed is not None
        self._job = job
        self._world = world
        partition = job.train.zero_hpz_partition_size
        _require_equal_parts(partition, world.size)
        self._config = deepspeed_config(job.train.deepspeed, partition)
        self._stage: int = self._config["zero_optimization"]["stage"]
        self._engine: Any = None
        self._shapes: dict[str, torch.Size] = {}

    def wrap(self, model: Any, trainer: Any) -> Any:
        """Return the engine, which from now on does the optimizer's steps as well."""
        if self._job.device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        # Each process sees one device only, whatever its number is.
        os.environ["LOCAL_RANK"] = "0"
        import deepspeed  # pyright: ignore[reportMissingImports]

        base = trainer.optimizer
        _require_elementwise(base)
        self._shapes = {name: weight.shape for name, weight in model.named_parameters()}
        self._engine, *_ = deepspeed.initialize(
            model=trainer.accelerator.prepare_model(model),
            optimizer=base,
            config=self._filled_in(),
            dist_init_required=False,
        )
        self._require_in_force()
        trainer.optimizer = _EngineOptimizer(base)
        trainer.accelerator.backward = lambda loss, **_: self._backward(trainer, loss)
        return self._engine

    def gradient_norm(self, norm: Any) -> float:
        """Return the norm that the engine's step found."""
        return float(self._engine.get_global_grad_norm() or 0.0)

    def whole_weights(self, model: Any) -> dict[str, Tensor] | None:
        """Gather every weight, in the processes that write files."""
        found: dict[int, Tensor] = {}
        state = model.state_dict(keep_vars=True)
        for value in state.values():
            if id(value) not in found:
                found[id(value)] = self._gathered(value)
        return {name: found[id(value)] for name, value in state.items()}

    def optimizer_state(self, trainer: Any) -> dict[str, Any] | None:
        """Leave the state to the engine's own files, for each process writes its part."""
        return {}

    def save_part(self, folder: Path) -> None:
        """Let the engine write its part of weights and optimizer states."""
        self._engine.save_checkpoint(
            str(folder), tag=_ENGINE_FOLDER, exclude_frozen_parameters=True
        )

    def load_optimizer_state(self, trainer: Any, file: Path) -> bool:
        """Let the engine take its part back."""
        self._engine.load_checkpoint(
            str(file.parent),
            tag=_ENGINE_FOLDER,
            load_module_strict=False,
            load_lr_scheduler_states=False,
        )
        return True

    def unshard(self, model: Any) -> None:
        """Put whole weights into the model, in the processes that write files."""
        if self._engine is None:
            return
        whole: dict[int, nn.Parameter] = {}
        # Kept until the end, so that no other tensor gets the id of one of them.
        spread = list(model.parameters())
        for module in model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                if id(weight) not in whole:
                    data = self._gathered(weight)
                    whole[id(weight)] = nn.Parameter(data, weight.requires_grad)
                module._parameters[name] = whole[id(weight)]
        del spread
        if self._world.leads:
            require_whole(model, self._shapes)

    def describe(self) -> str:
        """Name the processes and the stage."""
        backend = self._job.processes.chosen_backend(self._job.device)
        return f"{self._world.size} processes, DeepSpeed ZeRO-{self._stage} over {backend}"

    def _filled_in(self) -> dict[str, Any]:
        """Return the settings with what the recipe says about batches and gradients."""
        micro, _ = self._job.batch_plan()
        return {
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 2**31,
            **self._config,
            "train_micro_batch_size_per_gpu": micro,
            # The trainer says which backward pass is a step's last; the engine counts none.
            "gradient_accumulation_steps": 1,
            "train_batch_size": micro * self._world.size,
            "gradient_clipping": self._job.train.max_grad_norm,
        }

    def _require_in_force(self) -> None:
        found = int(self._engine.zero_optimization_stage())
        if found != self._stage:
            raise TrainingFailed(
                "the ZeRO stage that was asked for is not in force",
                where="train.deepspeed",
                found=f"stage {found}",
                expected=f"stage {self._stage}",
                do="leave train.deepspeed out, and report it",
            )

    def _backward(self, trainer: Any, loss: Tensor) -> None:
        last = trainer.accelerator.sync_gradients
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        self._engine.backward(loss, scale_wrt_gas=False)
        if last:
            self._engine.step()

    def _gathered(self, weight: Tensor) -> Tensor:
        """Return a whole weight in main memory, and nothing of it where nothing is written."""
        from deepspeed.runtime.zero.partition_parameters import (  # pyright: ignore[reportMissingImports]
            GatheredParameters,
        )

        spread = hasattr(weight, "ds_id")
        with GatheredParameters([weight], enabled=spread):
            data = weight.detach()
            return data.cpu().clone() if self._world.leads else data.new_empty(0, device="cpu")


def _require_equal_parts(partition: int | None, num_processes: int) -> None:
    if partition is not None and num_processes % partition:
        raise UsageError(
            "the processes can't be divided so",
            where="train.zero_hpz_partition_size",
            found=f"{partition}, of {num_processes} processes",
            expected="a number that divides them",
            do="give the number of processes of a machine",
        )


def _require_elementwise(optimizer: torch.optim.Optimizer) -> None:
    """Refuse optimizers other than torch's: the engine gives them flat pieces of many weights."""
    if not type(optimizer).__module__.startswith("torch.optim"):
        raise UsageError(
            "DeepSpeed can't spread the state of this optimizer",
            where="train.deepspeed",
            found=type(optimizer).__name__,
            expected="an optimizer of torch, such as AdamW",
            do="leave train.optim and train.optimizer out, or train.deepspeed",
        )


class _EngineOptimizer(torch.optim.Optimizer):
    """Stands where the trainer has its optimizer: the engine has made the step already.

    Args:
        base: the optimizer that the engine works with; schedules change its groups.
    """

    # What accelerate asks of an optimizer before it wraps it, and after each step.
    _is_accelerate_prepared = True
    step_was_skipped = False

    def __init__(self, base: torch.optim.Optimizer) -> None:
        # Not Optimizer's own, which would make groups of parameters.
        self._base = base
        self.defaults = base.defaults

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base's groups of now: loading a checkpoint puts others in their place."""
        return self._base.param_groups

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base's state of now."""
        return self._base.state

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do nothing."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: the engine has used the gradients up."""
