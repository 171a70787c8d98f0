"""Optimizers: groups of parameters with rates of their own, Muon, GaLore, schedule-free, LISA.

What transformers' Trainer makes by itself from `train.optim` is left to it; `make_optimizer` makes
the rest. All of them keep their whole state in `state_dict`, so that a resumed run goes on with the
same bits.
"""

from swiftcore.training.optimizers.choice import (
    check_optimization,
    describe_optimization,
    make_optimizer,
)
from swiftcore.training.optimizers.lisa import lisa_callbacks
from swiftcore.training.optimizers.resting import RestAtEnd, rest

__all__ = [
    "RestAtEnd",
    "check_optimization",
    "describe_optimization",
    "lisa_callbacks",
    "make_optimizer",
    "rest",
]
