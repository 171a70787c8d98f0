"""Cross-entropy over label tokens only, without ever holding logits of a whole batch.

Most tokens of a tuning row carry no loss, and for small models the vocabulary head is most of the
work. So hidden states are computed for all tokens, but logits for the label tokens alone, a chunk
at a time, and their gradient is made in the same pass. How logits come from hidden states, `heads`
finds out for the model at hand.

The balance loss of an expert model is made by the model's own code and returned apart: it is a mean
over a forward's tokens and has no share in a divisor of label tokens.

Shapes: B rows, T tokens, D width, V vocabulary, N label tokens.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from swiftcore.errors import UsageError
from swiftcore.training.forward import replace_forward, unwrapped
from swiftcore.training.heads import Head, body_states, examine_head, replay, whole_states
from swiftcore.training.row_layout import RowLayout, laid_out
from swiftcore.training.rows import IGNORED

if TYPE_CHECKING:
    from swiftcore.training.token_group import TokenGroup

# Label tokens a chunk: logits of 256 x 151,936 in float32 are 148 MiB.
_CHUNK_TOKENS = 256

# (logits [N, V] in float32, targets [N]) -> loss of each token [N]
TokenLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    """Return -log p of each target, [N]."""
    return functional.cross_entropy(logits_NV, target_N, reduction="none")


def dft_loss(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    """Return -p log p of each target with p held fixed, [N].

    Source: Wu et al., "On the Generalization of SFT: A Reinforcement Learning Perspective with
    Reward Rectification" (Dynamic Fine-Tuning), arXiv:2508.05629, equation 9.
    """
    loss_N = cross_entropy(logits_NV, target_N)
    return loss_N * torch.exp(-loss_N.detach())


@dataclass(frozen=True)
class LabelLossOptions:
    """How the label loss is made, beside what the model decides.

    Args:
        token_loss: the loss of a token.
        balance: weight of an expert model's balance loss.
        figures: also return each label token's loss and whether it has the highest logit.
        group: processes that share the tokens of each sequence; the total is then that of this
            process's tokens, and the figures are those of all.
    """

    token_loss: TokenLoss = cross_entropy
    balance: float = 0.0
    figures: bool = False
    group: "TokenGroup | None" = None


class LabelLosses(NamedTuple):
    """The loss of a batch.

    Args:
        total: sum(weight * loss) over label tokens, a float32 scalar.
        balance: the weighted balance loss of the forward, a scalar; None without one.
        losses_N: weight * loss of each label token, row by row; None unless asked for.
        hits_N: whether a label token has the highest logit; None unless asked for.
    """

    total: Tensor
    balance: Tensor | None = None
    losses_N: Tensor | None = None
    hits_N: Tensor | None = None


class _ChunkedCrossEntropy(torch.autograd.Function):
    """sum(weight * cross-entropy) over label tokens; the gradient is made in the forward pass.

    With `dft` the weight of a token is its own probability besides, which is held fixed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        target_N: Tensor,
        weight_N: Tensor,
        dft: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        need_hidden, need_head = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_ND) if need_hidden else None
        grad_head = torch.zeros_like(head_VD, dtype=torch.float32) if need_head else None
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        losses_N, hits_N = torch.empty_like(weight_N), torch.empty_like(target_N, dtype=torch.bool)
        head = head_VD.to(hidden_ND.dtype)
        # One buffer for all chunks: fresh memory of this size costs more than softmax does.
        buffer_NV = hidden_ND.new_empty(min(_CHUNK_TOKENS, len(target_N)), len(head_VD))
        for start in range(0, len(target_N), _CHUNK_TOKENS):
            chunk = slice(start, start + _CHUNK_TOKENS)
            hidden, target, weight = hidden_ND[chunk], target_N[chunk], weight_N[chunk]
            product_NV = torch.mm(hidden, head.t(), out=buffer_NV[: len(target)])
            powers_NV = product_NV.float()
            # Not max, which also looks for the place and takes eight times as long.
            highest_N1 = powers_NV.amax(dim=-1, keepdim=True)
            chosen_N1 = powers_NV.gather(1, target[:, None])
            sum_N1 = powers_NV.sub_(highest_N1).exp_().sum(dim=-1, keepdim=True)
            logp_N = (chosen_N1 - highest_N1 - sum_N1.log())[:, 0]
            if dft:
                weight = weight * logp_N.exp()
            total -= (logp_N * weight).sum()
            losses_N[chunk], hits_N[chunk] = -logp_N * weight, (chosen_N1 == highest_N1)[:, 0]
            if not (need_hidden or need_head):
                continue
            grad_NV = powers_NV.div_(sum_N1)
            grad_NV[torch.arange(len(target), device=target.device), target] -= 1
            grad_NV = grad_NV.to(hidden_ND.dtype)
            # Weights belong to tokens: scaling rows of D spares a pass over rows of V.
            scale = weight[:, None].to(hidden.dtype)
            if grad_hidden is not None:
                torch.mul(grad_NV @ head, scale, out=grad_hidden[chunk])
            if grad_head is not None:
                grad_head += grad_NV.t() @ (hidden * scale)
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_dtype = head_VD.dtype
        ctx.mark_non_differentiable(losses_N, hits_N)
        return total, losses_N, hits_N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_hidden, grad_head = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_head is None else (grad_head * scale).to(ctx.head_dtype),
            None,
            None,
            None,
        )


class _ReplayedCrossEntropy(torch.autograd.Function):
    """The same through the model's own head; `trained` are the parameters in it."""

    @staticmethod
    def forward(
        ctx: Any,
        causal: Any,
        options: LabelLossOptions,
        target_N: Tensor,
        weight_N: Tensor,
        hidden_ND: Tensor,
        *trained: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        needed = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_ND) if needed else None
        grads = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        losses_N, hits_N = torch.empty_like(weight_N), torch.empty_like(target_N, dtype=torch.bool)
        for start in range(0, len(target_N), _CHUNK_TOKENS):
            chunk = slice(start, start + _CHUNK_TOKENS)
            with torch.set_grad_enabled(needed):
                hidden = hidden_ND[chunk].detach().requires_grad_(needed)
                logits_NV = replay(causal, hidden).float()
                each_N = options.token_loss(logits_NV, target_N[chunk]) * weight_N[chunk]
                loss = each_N.sum()
                total += loss.detach()
                losses_N[chunk] = each_N.detach()
                if options.figures:
                    hits_N[chunk] = _hits(logits_NV, target_N[chunk])
            if grad_hidden is not None:
                grad_hidden[chunk], *parts = torch.autograd.grad(loss, [hidden, *trained])
                for grad, part in zip(grads, parts, strict=True):
                    grad += part
        ctx.save_for_backward(grad_hidden, *grads)
        ctx.dtypes = [parameter.dtype for parameter in trained]
        ctx.mark_non_differentiable(losses_N, hits_N)
        return total, losses_N, hits_N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_hidden, *grads = ctx.saved_tensors
        hidden = None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype)
        pairs = zip(grads, ctx.dtypes, strict=True)
        trained = [(grad * scale).to(dtype) for grad, dtype in pairs]
        return (None, None, None, None, hidden, *trained)


def label_loss(
    model: Any,
    input_ids: Tensor,
    labels: Tensor,
    loss_weights: Tensor | None = None,
    row_lengths: Tensor | None = None,
    head: Head | None = None,
) -> Tensor:
    """Return sum(weight * cross-entropy) over the label tokens of a batch, a float32 scalar.

    Args:
        model: as for `label_losses`, and so are the others.
        input_ids: [B, T].
        labels: [B, T].
        loss_weights: [B, T].
        row_lengths: tokens of each row side by side.
        head: how the model's logits are made.
    """
    return label_losses(model, input_ids, labels, loss_weights, row_lengths, head=head).total


def label_losses(
    model: Any,
    input_ids: Tensor,
    labels: Tensor,
    loss_weights: Tensor | None = None,
    row_lengths: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    head: Head | None = None,
    options: LabelLossOptions | None = None,
) -> LabelLosses:
    """Return the loss over the label tokens of a batch, and what else is asked for.

    Args:
        model: the causal language model itself, adapters inside it or not.
        input_ids: [B, T], padded on the right. No attention mask is needed: under causal attention
            no real token sees the padding behind it.
        labels: [B, T], unshifted, -100 where there is no loss.
        loss_weights: [B, T], weight of the loss of each token; None is 1 everywhere.
        row_lengths: tokens of each row, where all lie side by side in one sequence (B is 1); the
            first token of a row has no label then. The model was prepared by `attend_by_row`.
        lengths: [B], tokens of each padded row, which a balance loss leaves the padding out by.
        head: what `examine_head` said of the model; None asks it.
        options: default: cross-entropy alone.
    """
    head, options = head or examine_head(model), options or LabelLossOptions()
    inputs, layout = _inputs(input_ids, row_lengths, options.group)
    if options.balance:
        inputs["output_router_logits"] = True
        if row_lengths is None and lengths is not None:
            inputs["attention_mask"] = _mask(input_ids, lengths)
    target_BT = _of_next(labels, IGNORED, options.group)
    chosen_BT = target_BT != IGNORED
    target_N = target_BT[chosen_BT]
    weight_N = (
        torch.ones_like(target_N, dtype=torch.float32)
        if loss_weights is None
        else _of_next(loss_weights, 0.0, options.group)[chosen_BT].float()
    )
    with layout:
        states = whole_states if head.kind == "whole" else body_states
        found_BT, balance = states(model, **inputs)
    found_N = found_BT[chosen_BT]
    total, losses_N, hits_N = _summed(model, head, options, found_N, target_N, weight_N)
    weighted = options.balance * balance if options.balance and balance is not None else None
    if not options.figures:
        return LabelLosses(total, weighted)
    if options.group is not None:
        losses_N, hits_N = (options.group.of_all(part, chosen_BT) for part in (losses_N, hits_N))
    return LabelLosses(total, weighted, losses_N, hits_N)


def _summed(
    model: Any,
    head: Head,
    options: LabelLossOptions,
    found_N: Tensor,
    target_N: Tensor,
    weight_N: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return sum, losses and hits of label tokens; `found_N` are logits or hidden states."""
    if head.kind == "whole":
        logits_NV = found_N.float()
        losses_N = options.token_loss(logits_NV, target_N) * weight_N
        hits_N = _hits(logits_NV, target_N) if options.figures else None
        return losses_N.sum(), losses_N.detach(), hits_N
    by_hand = options.token_loss in (cross_entropy, dft_loss)
    if head.kind == "replayed" or not by_hand:
        trained = [model.get_parameter(name) for name in head.trained]
        if not torch.is_grad_enabled():
            trained = []
        return _ReplayedCrossEntropy.apply(model, options, target_N, weight_N, found_N, *trained)
    if torch.is_autocast_enabled(found_N.device.type):
        found_N = found_N.to(torch.get_autocast_dtype(found_N.device.type))
    matrix = model.get_output_embeddings().weight
    matrix_VD = matrix if torch.is_grad_enabled() else matrix.detach()
    dft = options.token_loss is dft_loss
    return _ChunkedCrossEntropy.apply(found_N, matrix_VD, target_N, weight_N, dft)


def _hits(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    return logits_NV.gather(1, target_N[:, None])[:, 0] == logits_NV.amax(dim=-1)


def _mask(input_ids: Tensor, lengths: Tensor) -> Tensor:
    """Return 1 for a row's tokens and 0 for its padding, [B, T]."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (places[None] < lengths[:, None].to(input_ids.device)).long()


def _of_next(values_BT: Tensor, fill: float, group: "TokenGroup | None") -> Tensor:
    """Return for each token the value of the one after it, and `fill` for the last."""
    shifted_BT = functional.pad(values_BT[:, 1:], (0, 1), value=fill)
    return shifted_BT if group is None else group.part(shifted_BT, fill)


def _inputs(
    input_ids: Tensor, row_lengths: Tensor | None, group: "TokenGroup | None"
) -> tuple[dict[str, Any], AbstractContextManager[None]]:
    if row_lengths is None and group is None:
        return {"input_ids": input_ids}, nullcontext()
    whole = (input_ids.shape[1],)
    lengths = whole if row_lengths is None else tuple(row_lengths.tolist())
    layout = RowLayout(lengths) if group is None else RowLayout.shared(lengths, group)
    return layout.inputs(input_ids), laid_out(layout)


def install_label_loss(
    model: Any, chunks: bool = True, options: LabelLossOptions | None = None
) -> Head:
    """Make a model's forward return {"loss": summed label loss}, under whatever wraps the model.

    peft, autocast and data-parallel wrappers act on `forward`, so the loss has to be made inside.
    With it come "balance_loss", "token_losses" and "token_hits" where the options ask for them.

    Args:
        model: a causal language model, wrapped by peft or not.
        chunks: make logits of label tokens alone, where the model allows it.
        options: default: cross-entropy alone.

    Raises:
        UsageError: a balance loss is asked for and the model has no experts.
    """
    causal = unwrapped(model)
    options = options or LabelLossOptions()
    if options.balance and not hasattr(causal.config, "output_router_logits"):
        raise UsageError(
            "the model has no experts to balance",
            where="train.router_aux_loss_coef",
            found=f"{options.balance} with a {type(causal).__name__}",
            do="leave train.router_aux_loss_coef at 0",
        )
    head = examine_head(causal) if chunks else Head("whole", found="train.label_logits is off")

    def forward(
        self: nn.Module,
        input_ids: Tensor,
        labels: Tensor,
        loss_weights: Tensor | None = None,
        row_lengths: Tensor | None = None,
        lengths: Tensor | None = None,
        **_from_wrappers: Any,
    ) -> dict[str, Tensor]:
        batch = (input_ids, labels, loss_weights, row_lengths, lengths)
        found = label_losses(self, *batch, head=head, options=options)
        outputs = {
            "loss": found.total,
            "balance_loss": found.balance,
            "token_losses": found.losses_N,
            "token_hits": found.hits_N,
        }
        return {name: value for name, value in outputs.items() if value is not None}

    replace_forward(causal, forward)
    return head
