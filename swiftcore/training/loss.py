"""Cross-entropy over label tokens only, without ever holding logits of a whole batch.

Most tokens of a tuning row carry no loss, and for small models the vocabulary head is most of the
work. So hidden states are computed for all tokens, but logits for the label tokens alone, a chunk
at a time, and their gradient is made in the same pass. How logits come from hidden states, `heads`
finds out for the model at hand.

An expert model's balance loss is not part of it, as with ms-swift's default router_aux_loss_coef.

Shapes: B rows, T tokens, D width, V vocabulary, N label tokens.
"""

import types
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swiftcore.training.heads import Head, examine_head, hidden_states, replay
from swiftcore.training.row_layout import RowLayout, laid_out
from swiftcore.training.rows import IGNORED

# Label tokens a chunk: logits of 256 x 151,936 in float32 are 148 MiB.
_CHUNK_TOKENS = 256


class _ChunkedCrossEntropy(torch.autograd.Function):
    """sum(weight * cross-entropy) over label tokens; the gradient is made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, target_N: Tensor, weight_N: Tensor
    ) -> Tensor:
        need_hidden, need_head = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_ND) if need_hidden else None
        grad_head = torch.zeros_like(head_VD, dtype=torch.float32) if need_head else None
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        head = head_VD.to(hidden_ND.dtype)
        for start in range(0, len(target_N), _CHUNK_TOKENS):
            chunk = slice(start, start + _CHUNK_TOKENS)
            hidden, target, weight = hidden_ND[chunk], target_N[chunk], weight_N[chunk]
            logits_NV = (hidden @ head.t()).float()
            highest, place = logits_NV.max(dim=-1, keepdim=True)
            chosen = logits_NV.gather(1, target[:, None])
            grad_NV = torch.softmax(logits_NV, dim=-1)
            # The highest probability can't vanish, so its logarithm gives the normaliser exactly.
            logp_N = (chosen - highest + grad_NV.gather(1, place).log())[:, 0]
            total -= (logp_N * weight).sum()
            if not (need_hidden or need_head):
                continue
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
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_hidden, grad_head = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_head is None else (grad_head * scale).to(ctx.head_dtype),
            None,
            None,
        )


class _ReplayedCrossEntropy(torch.autograd.Function):
    """The same through the model's own head; `trained` are the parameters in it."""

    @staticmethod
    def forward(
        ctx: Any,
        causal: Any,
        target_N: Tensor,
        weight_N: Tensor,
        hidden_ND: Tensor,
        *trained: Tensor,
    ) -> Tensor:
        needed = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_ND) if needed else None
        grads = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        for start in range(0, len(target_N), _CHUNK_TOKENS):
            chunk = slice(start, start + _CHUNK_TOKENS)
            with torch.set_grad_enabled(needed):
                hidden = hidden_ND[chunk].detach().requires_grad_(needed)
                logits_NV = replay(causal, hidden).float()
                loss = _weighted(logits_NV, target_N[chunk], weight_N[chunk])
                total += loss.detach()
            if grad_hidden is not None:
                grad_hidden[chunk], *parts = torch.autograd.grad(loss, [hidden, *trained])
                for grad, part in zip(grads, parts, strict=True):
                    grad += part
        ctx.save_for_backward(grad_hidden, *grads)
        ctx.dtypes = [parameter.dtype for parameter in trained]
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_hidden, *grads = ctx.saved_tensors
        hidden = None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype)
        pairs = zip(grads, ctx.dtypes, strict=True)
        return (None, None, None, hidden, *((grad * scale).to(dtype) for grad, dtype in pairs))


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
        model: the causal language model itself, adapters inside it or not.
        input_ids: [B, T], padded on the right. No attention mask is needed: under causal attention
            no real token sees the padding behind it.
        labels: [B, T], unshifted, -100 where there is no loss.
        loss_weights: [B, T], weight of the loss of each token; None is 1 everywhere.
        row_lengths: tokens of each row, where all lie side by side in one sequence (B is 1); the
            first token of a row has no label then. The model was prepared by `attend_by_row`.
        head: what `examine_head` said of the model; None asks it.
    """
    head = head or examine_head(model)
    places, layout = _places(row_lengths, input_ids.device)
    target_BT = labels[:, 1:]
    chosen_BT = target_BT != IGNORED
    target_N = target_BT[chosen_BT]
    weight_N = (
        torch.ones_like(target_N, dtype=torch.float32)
        if loss_weights is None
        else loss_weights[:, 1:][chosen_BT].float()
    )
    if head.kind == "whole":
        with layout:
            inputs = {"input_ids": input_ids, "use_cache": False, **places}
            logits_BTV = type(model).forward(model, **inputs).logits
        return _weighted(logits_BTV[:, :-1][chosen_BT].float(), target_N, weight_N)
    with layout:
        hidden_BTD = hidden_states(model, input_ids=input_ids, **places)
    hidden_ND = hidden_BTD[:, :-1][chosen_BT]
    if head.kind == "replayed":
        trained = [model.get_parameter(name) for name in head.trained]
        if not torch.is_grad_enabled():
            trained = []
        return _ReplayedCrossEntropy.apply(model, target_N, weight_N, hidden_ND, *trained)
    if torch.is_autocast_enabled(hidden_ND.device.type):
        hidden_ND = hidden_ND.to(torch.get_autocast_dtype(hidden_ND.device.type))
    matrix = model.get_output_embeddings().weight
    matrix_VD = matrix if torch.is_grad_enabled() else matrix.detach()
    return _ChunkedCrossEntropy.apply(hidden_ND, matrix_VD, target_N, weight_N)


def _weighted(logits_NV: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
    return (functional.cross_entropy(logits_NV, target_N, reduction="none") * weight_N).sum()


def _places(
    row_lengths: Tensor | None, device: torch.device
) -> tuple[dict[str, Tensor], AbstractContextManager[None]]:
    if row_lengths is None:
        return {}, nullcontext()
    layout = RowLayout(tuple(row_lengths.tolist()))
    return {"position_ids": layout.position_ids(device)}, laid_out(layout)


def install_label_loss(model: Any, chunks: bool = True) -> Head:
    """Make a model's forward return {"loss": summed label loss}, under whatever wraps the model.

    peft, autocast and data-parallel wrappers act on `forward`, so the loss has to be made inside.

    Args:
        model: a causal language model, wrapped by peft or not.
        chunks: make logits of label tokens alone, where the model allows it.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = examine_head(causal) if chunks else Head("whole", found="train.label_logits is off")

    def forward(
        self: nn.Module,
        input_ids: Tensor,
        labels: Tensor,
        loss_weights: Tensor | None = None,
        row_lengths: Tensor | None = None,
        **_from_wrappers: Any,
    ) -> dict[str, Tensor]:
        return {"loss": label_loss(self, input_ids, labels, loss_weights, row_lengths, head)}

    causal.forward = types.MethodType(forward, causal)
    return head
