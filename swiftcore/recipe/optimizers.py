"""Every value of `train.optim`: what it reads, how large its rate may be, why others are refused.

The names are transformers'. This table is data alone, so that a recipe is checked without torch.
"""

from dataclasses import dataclass

DEFAULT = "adamw_torch_fused"
_ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
_BETAS = _ADAM[:2]


@dataclass(frozen=True)
class OptimizerKind:
    """One optimizer.

    Args:
        name: as it is written in a recipe.
        reads: the adam_* fields of the train section that it reads.
        args: settings that `train.optim_args` may give it.
        largest_rate: no peak learning rate above it is accepted. A step of Adam and its relatives
            moves a weight by about the rate, and weights are smaller than 1; the others scale a
            clipped gradient.
        bitsandbytes: whether it is made by that package.
        paged: whether its state moves between GPU and host memory.
        schedule_free: whether it averages weights instead of lowering the rate.
        whole_weights: whether it can't step parts of a weight, as processes have them.
    """

    name: str
    reads: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    largest_rate: float = 1.0
    bitsandbytes: bool = False
    paged: bool = False
    schedule_free: bool = False
    whole_weights: bool = False


def _bitsandbytes(reads: tuple[str, ...], *names: str) -> tuple[OptimizerKind, ...]:
    return tuple(
        OptimizerKind(
            name, reads, bitsandbytes=True, paged=name.startswith("paged_"), whole_weights=True
        )
        for name in names
    )


_ALL = (
    OptimizerKind("adamw_torch", _ADAM),
    OptimizerKind("adamw_torch_fused", _ADAM),
    OptimizerKind("sgd", args=("momentum", "dampening", "nesterov"), largest_rate=10.0),
    OptimizerKind("adafactor", whole_weights=True),
    OptimizerKind("adagrad", args=("lr_decay", "eps")),
    OptimizerKind("rmsprop", args=("momentum", "alpha", "eps", "centered")),
    *_bitsandbytes(_ADAM, "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"),
    *_bitsandbytes(
        _ADAM, "ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"
    ),
    *_bitsandbytes(_BETAS, "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit"),
    *_bitsandbytes((), "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"),
    OptimizerKind("schedule_free_adamw", _ADAM, schedule_free=True),
    OptimizerKind("schedule_free_radam", _ADAM, schedule_free=True),
    OptimizerKind("schedule_free_sgd", args=("momentum",), largest_rate=10.0, schedule_free=True),
)
OPTIMIZERS = {kind.name: kind for kind in _ALL}

_GALORE = "set tuner.use_galore instead; train.optim says which optimizer steps in the projection"
_TORCHAO = "it needs torchao, whose optimizers compile C++ at the first step; take adamw_8bit"
_LOMO = "it updates weights during the backward pass, where gradients can't be clipped or checked"
_APOLLO = "it needs the package apollo_torch; tuner.use_galore saves the same memory"
_REFUSED = {
    "adamw_torch_xla": "it needs torch_xla, and training here runs on a CPU or a CUDA device",
    "adamw_torch_npu_fused": "it needs torch_npu, and training here runs on a CPU or a CUDA device",
    "adamw_anyprecision": "its package torchdistx is no longer published; take adamw_8bit",
    "adamw_torch_4bit": _TORCHAO,
    "adamw_torch_8bit": _TORCHAO,
    "galore_adamw": _GALORE,
    "galore_adamw_8bit": _GALORE,
    "galore_adafactor": _GALORE,
    "galore_adamw_layerwise": _GALORE,
    "galore_adamw_8bit_layerwise": _GALORE,
    "galore_adafactor_layerwise": _GALORE,
    "lomo": _LOMO,
    "adalomo": _LOMO,
    "grokadamw": "it needs the package grokadamw",
    "apollo_adamw": _APOLLO,
    "apollo_adamw_layerwise": _APOLLO,
    "stable_adamw": "it needs the package torch-optimi",
}


def why_not(name: str) -> str | None:
    """Return what is wrong with a value of `train.optim`, None when it works."""
    if name in OPTIMIZERS:
        return None
    known = ", ".join(OPTIMIZERS)
    if name in _REFUSED:
        return f"optim {name!r} is refused: {_REFUSED[name]}"
    return f"optim {name!r} is not known; choose one of {known}"
