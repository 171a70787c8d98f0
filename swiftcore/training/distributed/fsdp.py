"""FSDP2: each process holds a part of each weight, its gradient and its optimizer state.

transformers' own `fsdp` argument ran plain DDP on a CPU without a word, so the sharding is made
here with torch's `fully_shard`, and looked at before the first step.
Source: https://arxiv.org/abs/2304.11277
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from swiftcore.errors import TrainingFailed
from swiftcore.recipe.sharding import reshard_after_forward
from swiftcore.training.distributed.strategies import Alone
from swiftcore.training.distributed.whole import require_shardable, require_whole
from swiftcore.training.distributed.world import World
from swiftcore.training.job import TrainJob


class FullyShard(Alone):
    """Weights are gathered block by block for each pass, and gradients reduced to their parts.

    Gradients are reduced in every pass of a step: whole ones would cost what sharding saves.

    Args:
        job: for the settings and the device.
        world: all processes; those that write files get whole weights.
    """

    def __init__(self, job: TrainJob, world: World) -> None:
        require_shardable(job)
        self._job = job
        self._world = world
        self._reshard = reshard_after_forward(job.train.fsdp or "fsdp2")
        self._classes: dict[FSDPModule, type[nn.Module]] = {}
        self._shapes: dict[str, torch.Size] = {}

    def shard(self, model: nn.Module) -> None:
        """Spread each block's weights, then what is left, and make sure that nothing is whole."""
        if self._classes:
            return
        self._shapes = {name: weight.shape for name, weight in model.named_parameters()}
        mesh = init_device_mesh(self._job.device, (self._world.size,))
        for module in [*_blocks(model), model]:
            kind = type(module)
            sharded = fully_shard(module, mesh=mesh, reshard_after_forward=self._reshard)
            self._classes[sharded] = kind
        whole = [name for name, weight in model.named_parameters() if not _is_shard(weight)]
        if whole:
            raise TrainingFailed(
                "FSDP2 was asked for and is not in force",
                where="train.fsdp",
                found=f"{len(whole)} whole weights, such as {whole[0]}",
                expected="every weight spread over the processes",
                do="leave train.fsdp out, and report it",
            )

    def gradient_norm(self, norm: Any) -> float:
        """Return the norm over the parts of all processes."""
        return float(norm.full_tensor()) if isinstance(norm, DTensor) else float(norm)

    def whole_weights(self, model: Any) -> dict[str, Tensor] | None:
        """Gather every weight, in the processes that write files."""
        return self._gathered(model.state_dict())

    def optimizer_state(self, trainer: Any) -> dict[str, Any] | None:
        """Gather the optimizer's state, in the processes that write files."""
        state = trainer.optimizer.state_dict()
        gathered = {number: self._gathered(values) for number, values in state["state"].items()}
        return {**state, "state": gathered}

    def load_optimizer_state(self, trainer: Any, file: Path) -> bool:
        """Take this process's part of a whole optimizer state."""
        state = torch.load(file, map_location=self._job.device, weights_only=True)
        weights = [weight for group in trainer.optimizer.param_groups for weight in group["params"]]
        for number, values in state["state"].items():
            weight = weights[number]
            for name, value in values.items():
                if value.shape == weight.shape:
                    values[name] = distribute_tensor(value, weight.device_mesh, weight.placements)
        trainer.optimizer.load_state_dict(state)
        return True

    def unshard(self, model: Any) -> None:
        """Put whole weights into the model, in the processes that write files."""
        for module, kind in self._classes.items():
            module.__class__ = kind  # pyright: ignore[reportAttributeAccessIssue]
        self._classes = {}
        whole: dict[int, nn.Parameter] = {}
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                if id(weight) not in whole and isinstance(weight, DTensor):
                    data = self._kept(weight.full_tensor().detach())
                    whole[id(weight)] = nn.Parameter(data, weight.requires_grad)
                if id(weight) in whole:
                    module._parameters[name] = whole[id(weight)]
        if self._world.leads and self._shapes:
            require_whole(model, self._shapes)

    def describe(self) -> str:
        """Name the processes and what is spread over them."""
        backend = self._job.processes.chosen_backend(self._job.device)
        kept = "" if self._reshard else ", weights kept between forward and backward"
        return f"{self._world.size} processes, FSDP2 over {backend}: every weight spread out{kept}"

    def _gathered(self, values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: self._kept(value.full_tensor()) if isinstance(value, DTensor) else value
            for name, value in values.items()
        }

    def _kept(self, value: Tensor) -> Tensor:
        """Return a gathered tensor in main memory, and nothing of it where nothing is written."""
        return value.cpu() if self._world.leads else value.new_empty(0, device="cpu")


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Return the modules of the longest list of equal ones: a transformer's blocks."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    longest = max(lists, key=len, default=nn.ModuleList())
    return list(longest)


def _is_shard(weight: Any) -> bool:
    return isinstance(weight, DTensor) and any(place.is_shard() for place in weight.placements)
