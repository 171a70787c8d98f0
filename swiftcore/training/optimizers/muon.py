"""Muon: matrices of the blocks get orthogonal updates, everything else AdamW's.

The updates are scaled to the size of AdamW's, so one learning rate serves both.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; Liu et al. 2025, Muon is
Scalable for LLM Training (arXiv:2502.16982), for that scale.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from swiftcore.errors import UsageError
from swiftcore.training.optimizers.groups import Group
from swiftcore.training.optimizers.joined import Joined


def muon_with_adamw(
    model: nn.Module, groups: Sequence[Group], betas: tuple[float, float], epsilon: float
) -> Optimizer:
    """Return Muon for the matrices of the model's blocks, joined with AdamW for the rest.

    Raises:
        UsageError: no such matrix is trained.
    """
    matrices = _block_matrices(model)
    inside = _kept(groups, lambda parameter: id(parameter) in matrices)
    outside = _kept(groups, lambda parameter: id(parameter) not in matrices)
    if not inside:
        raise UsageError(
            "muon has nothing to do",
            where="train.optimizer",
            found="no matrix of the model's blocks is trained",
            do="train with another optimizer",
        )
    members: list[Optimizer] = [Muon(inside, adjust_lr_fn="match_rms_adamw")]
    if outside:
        members.append(AdamW(outside, betas=betas, eps=epsilon))
    return Joined(members)


def _block_matrices(model: nn.Module) -> set[int]:
    """Return the ids of the matrices in numbered layers; embeddings are tables, not matrices."""
    numbered = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    inside = {id(p) for layers in numbered for p in layers.parameters() if p.ndim == 2}
    return inside - tables


def _kept(groups: Sequence[Group], chosen: Callable[[Any], bool]) -> list[Group]:
    split = [{**group, "params": [p for p in group["params"] if chosen(p)]} for group in groups]
    return [group for group in split if group["params"]]
