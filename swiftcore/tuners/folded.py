"""LoRA on a frozen linear layer as one function with a backward of its own.

peft runs three products a layer and keeps what each of them needs. y = x (W + s B A)^T + b needs
one, and its backward needs nothing but x: with g = dL/dy

    dL/dx = g (W + s B A)     dL/dA = s (g B)^T x     dL/dB = s g^T (x A^T)

Making W + s B A costs as much as a few rows of x, so it pays for many tokens; for few tokens beside
a large W, s (x A^T) B^T is added to x W^T in place. In 16 bits it is always added: a small B A
would be lost in the rounding of W + s B A, and with it what was learnt.

peft's modules stay as they are, with their names, weights, merging and saving; only the forward of
those that allow it is replaced, and that goes back to peft's whenever the module is merged, its
adapter disabled or called in another way.

Shapes: N tokens, I and O the layer's inputs and outputs, R the rank.
"""

import types
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Names that the log gives for a reason; a model may have hundreds.
_MAX_NAMED = 3


@dataclass(frozen=True)
class Folding:
    """Which adapted layers take the one product, and why the others don't.

    Args:
        folded: names of the modules that do.
        left: names of the modules that don't, by reason.
    """

    folded: tuple[str, ...]
    left: dict[str, tuple[str, ...]]

    def describe(self) -> str:
        """Return one line for the log and the record."""
        parts = []
        for reason, names in self.left.items():
            more = ", ..." if len(names) > _MAX_NAMED else ""
            parts.append(f"{len(names)} with {reason} ({', '.join(names[:_MAX_NAMED])}{more})")
        line = f"LoRA folded into one product in {len(self.folded)} layers"
        return line + (f"; left to peft: {'; '.join(parts)}" if parts else "")


def fold_lora(model: nn.Module) -> Folding:
    """Replace the forward of every LoRA layer that can be folded, and say which they are."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    folded: list[str] = []
    left: defaultdict[str, list[str]] = defaultdict(list)
    layers: list[tuple[str, Any]] = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    for name, module in layers:
        short = name.removeprefix("base_model.model.")
        reason = _obstacle(module)
        if reason is not None:
            left[reason].append(short)
            continue
        module.forward = types.MethodType(_forward, module)
        folded.append(short)
    return Folding(tuple(folded), {reason: tuple(names) for reason, names in left.items()})


def _obstacle(module: Any) -> str | None:
    """Return why a layer can't be folded, or None."""
    from peft.tuners.lora.layer import Linear

    base: Any = getattr(module, "base_layer", None)
    if type(module) is not Linear or type(base) is not nn.Linear:
        return f"a {type(base).__name__} below peft's {type(module).__name__}"
    if len(module.active_adapters) != 1 or set(module.lora_A) != set(module.active_adapters):
        return "several adapters"
    name = module.active_adapters[0]
    if name in module.lora_variant:
        return type(module.lora_variant[name]).__name__.removesuffix("LinearVariant")
    if not isinstance(module.lora_dropout[name], nn.Identity):
        return "dropout"
    inner = (module.lora_A[name], module.lora_B[name])
    if any(type(layer) is not nn.Linear or layer.bias is not None for layer in inner):
        return "a bias beside LoRA's matrices"
    if any(parameter.requires_grad for parameter in base.parameters()):
        return "base weights that are trained"
    if base.weight.dtype not in _FLOATS:
        return f"{str(base.weight.dtype).removeprefix('torch.')} weights"
    if any(_is_watched(layer) for layer in (base, *inner)):
        return "hooks"
    return None


def _is_watched(layer: nn.Module) -> bool:
    """Return whether something wants to be told of, or to change, a call that won't come."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or hasattr(layer, "_hf_hook")
        or "forward" in vars(layer)
    )


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    active = self.active_adapters
    usual = args or kwargs or self.disable_adapters or self.merged or len(active) != 1
    if usual or active[0] not in self.lora_A:
        return type(self).forward(self, x, *args, **kwargs)
    base, down, up = self.base_layer, self.lora_A[active[0]].weight, self.lora_B[active[0]].weight
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    elif x.dtype == base.weight.dtype == down.dtype == up.dtype:
        dtype = x.dtype
    else:
        # Types that nobody has settled: peft computes its part in that of the adapter.
        return type(self).forward(self, x, *args, **kwargs)
    return _FoldedLinear.apply(x, base.weight, base.bias, down, up, self.scaling[active[0]], dtype)


class _FoldedLinear(torch.autograd.Function):
    """x [..., I] -> [..., O]; gradients of x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        down_RI: Tensor,
        up_OR: Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        x_type, x = x.dtype, x.to(dtype)
        ctx.save_for_backward(x, weight_OI, down_RI, up_OR)
        ctx.scale, ctx.x_type = scale, x_type
        bias = None if bias_O is None else bias_O.to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            weight, down, up = weight_OI.to(dtype), down_RI.to(dtype), up_OR.to(dtype)
            if _pays(x, weight):
                return functional.linear(x, torch.addmm(weight, up, down, alpha=scale), bias)
            y = functional.linear(x, weight, bias)
            y_NO = y.view(-1, y.shape[-1])
            y_NO.addmm_(x.reshape(-1, x.shape[-1]) @ down.t(), up.t(), alpha=scale)
            return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: the decorator has no names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight_OI, down_RI, up_OR = ctx.saved_tensors
        need_x, need_down, need_up = (ctx.needs_input_grad[place] for place in (0, 3, 4))
        dtype, scale = x.dtype, ctx.scale
        with torch.autocast(x.device.type, enabled=False):
            grad = grad_outputs[0].to(dtype)
            weight, down, up = weight_OI.to(dtype), down_RI.to(dtype), up_OR.to(dtype)
            x_NI, grad_NO = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
            grad_NR = grad_NO @ up
            grad_x = grad_down = grad_up = None
            if need_x and _pays(x, weight):
                grad_x = grad_NO @ torch.addmm(weight, up, down, alpha=scale)
            elif need_x:
                grad_x = (grad_NO @ weight).addmm_(grad_NR, down, alpha=scale)
            if need_down:
                grad_down = (grad_NR.t() @ x_NI).to(down_RI.dtype).mul_(scale)
            if need_up:
                grad_up = (grad_NO.t() @ (x_NI @ down.t())).to(up_OR.dtype).mul_(scale)
        if grad_x is not None:
            grad_x = grad_x.view(x.shape).to(ctx.x_type)
        return grad_x, None, None, grad_down, grad_up, None, None


def _pays(x: Tensor, weight_OI: Tensor) -> bool:
    """Return whether making the folded weight costs less than adding LoRA's part to each token."""
    outputs, inputs = weight_OI.shape
    num_tokens = x.numel() // inputs
    return x.dtype == torch.float32 and num_tokens * (inputs + outputs) > inputs * outputs
