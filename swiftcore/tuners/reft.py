"""ReFT: weights stay, and the output h of chosen blocks is edited in a subspace of R dimensions.

    LoreftIntervention      h + R^T (f(W h + b) - R h)
    NoreftIntervention      h + P^T (f(W h + b) - P h)
    ConsreftIntervention    h + R^T (b - R h)
    LobireftIntervention    h + R^T b
    DireftIntervention      h + R^T f(W h + b)
    NodireftIntervention    h + P^T f(W h + b)

The rows of R are orthonormal, those of P free; f is the identity unless `act_fn` names another.
Every token of a row is edited, prompt and answer alike, in training and in generation: the paper
also edits the first and last tokens of the prompt alone, which ms-swift does not offer either.

Source: Wu et al. 2024, ReFT (arXiv:2404.03592), section 3.2 and appendix; the names are pyreft's.

Shapes: H the width of the residual stream, R the rank.
"""

import difflib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners.blocks import decoder_blocks, stream_width

_ORTHOGONAL = ("LoreftIntervention", "ConsreftIntervention", "LobireftIntervention",
               "DireftIntervention")  # fmt: skip
# Edits that take the place of what the subspace held; the others add to it.
_REPLACING = ("LoreftIntervention", "NoreftIntervention", "ConsreftIntervention")
# Edits whose target is one vector for all tokens.
_CONSTANT = ("ConsreftIntervention", "LobireftIntervention")


class _Orthonormal(nn.Module):
    """A free matrix [R, H] made one of orthonormal rows, by Gram-Schmidt.

    The size of the free matrix does not matter, so weight decay does no harm. torch's own
    parametrization keeps signs in numbers that decay turns into zeros.
    """

    def forward(self, free_RH: Tensor) -> Tensor:
        q_HR, triangle = torch.linalg.qr(free_RH.T)
        return (q_HR * triangle.diagonal().sign()).T


class Intervention(nn.Module):
    """An edit of hidden states [..., H] in a subspace.

    Args:
        kind: pyreft's name of it.
        width: H.
        rank: R.
        act_fn: function of the target, as transformers names it; None is the identity.
        dropout: of the edited hidden states.
        add_bias: whether a free projection has a bias.
        device: where its weights are made.
    """

    def __init__(
        self,
        kind: str,
        width: int,
        rank: int,
        *,
        act_fn: str | None = None,
        dropout: float = 0.0,
        add_bias: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        from transformers.activations import ACT2FN

        place: dict[str, Any] = {"device": device, "dtype": torch.float32}
        self._replaces = kind in _REPLACING
        self.projection = nn.Linear(width, rank, bias=add_bias, **place)
        if kind in _ORTHOGONAL:
            nn.init.orthogonal_(self.projection.weight)
            parametrize.register_parametrization(self.projection, "weight", _Orthonormal())
        if kind in _CONSTANT:
            self.target = nn.Parameter(torch.rand(rank, **place))
        else:
            self.source = nn.Linear(width, rank, **place)
        self.activation = ACT2FN[act_fn or "linear"]
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the edited hidden states, in the type of those given."""
        weight_RH = self.projection.weight
        h = hidden.to(weight_RH.dtype)
        change = self.activation(self.source(h)) if hasattr(self, "source") else self.target
        if self._replaces:
            change = change - self.projection(h)
        return self.dropout(h + change @ weight_RH).to(hidden.dtype)


def add_interventions(model: nn.Module, section: TunerSection) -> nn.Module:
    """Return the model with an edit behind each chosen block; nothing but these is trainable.

    Raises:
        UsageError: the blocks were not found or not that many, the rank is no subspace's, or
            reft_args has a setting that the intervention does not know.
    """
    model.requires_grad_(False)
    _, blocks = decoder_blocks(model)
    width = stream_width(model)
    arguments = _arguments(section)
    _refuse_rank(section.reft_rank, width)
    for place in _places(section, len(blocks)):
        block = blocks[place]
        device = next(block.parameters()).device
        edit = Intervention(
            section.reft_intervention_type, width, section.reft_rank, device=device, **arguments
        )
        block.add_module("reft", edit)
        block.register_forward_hook(_edited)
    return model


def _edited(block: Any, _inputs: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return (block.reft(output[0]), *output[1:])
    return block.reft(output)


def _places(section: TunerSection, num_blocks: int) -> list[int]:
    if section.reft_layers is None:
        return list(range(num_blocks))
    odd = [place for place in section.reft_layers if not 0 <= place < num_blocks]
    if odd or not section.reft_layers:
        raise UsageError(
            "the model has no such blocks",
            where="tuner.reft_layers",
            found=odd or "none",
            expected=f"some of 0 to {num_blocks - 1}",
            do="name blocks of this model, or leave the setting out for all of them",
        )
    return sorted(set(section.reft_layers))


def _refuse_rank(rank: int, width: int) -> None:
    if rank > width:
        raise UsageError(
            "the subspace has more dimensions than the hidden states",
            where="tuner.reft_rank",
            found=rank,
            expected=f"at most {width}",
            do="lower tuner.reft_rank",
        )


def _arguments(section: TunerSection) -> dict[str, Any]:
    """Return the settings in reft_args that the intervention reads."""
    from transformers.activations import ACT2FN

    kind, given = section.reft_intervention_type, section.reft_args
    known = {"dropout"} if kind != "ConsreftIntervention" else set[str]()
    known |= {"act_fn"} if kind not in _CONSTANT else set()
    known |= {"add_bias"} if kind == "NoreftIntervention" else set()
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"{kind} has no such setting",
                where="tuner.reft_args",
                found=name,
                expected=", ".join(near or sorted(known)) or "none",
                do="correct the name, or remove it",
            )
    dropout = given.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise _wrong("dropout", dropout, "a number from 0 to below 1")
    act_fn = given.get("act_fn")
    if act_fn is not None and act_fn not in ACT2FN:
        raise _wrong("act_fn", act_fn, ", ".join(sorted(ACT2FN)))
    if not isinstance(given.get("add_bias", False), bool):
        raise _wrong("add_bias", given["add_bias"], "true or false")
    return given


def _wrong(name: str, found: object, expected: str) -> UsageError:
    return UsageError(
        "the intervention can't have this value",
        where=f"tuner.reft_args {name}",
        found=found,
        expected=expected,
        do="correct it, or remove it",
    )
