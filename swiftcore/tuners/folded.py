"""LoRA and DoRA on a frozen linear layer as one function with a backward of its own.

peft runs three products a layer and keeps what each of them needs. y = x (W + s B A)^T + b needs
one, and its backward needs nothing but x: with g = dL/dy

    dL/dx = g (W + s B A)     dL/dA = s (g B)^T x     dL/dB = s g^T (x A^T)

Making W + s B A costs as much as a few rows of x, so it pays for many tokens; for few tokens beside
a large W, s (x A^T) B^T is added to x W^T in place. In 16 bits it is always added: a small B A
would be lost in the rounding of W + s B A, and with it what was learnt.

DoRA scales the outputs z = x (W + s B A)^T by c = m / |W + s B A|, the norms of rows held fixed, so
g c stands for g above and dL/dm = sum over tokens of g z / |W + s B A|. It needs W + s B A for the
norms anyway, of which peft runs two more products of that size. It is folded in float32 alone.

Products with the rank are written with the rank first, [R, ...]: the other way a matrix library
takes two to ten times as long for the same numbers, a sixth of the whole step of a small model.

peft's modules stay as they are, with their names, weights, merging and saving; only the forward of
those that allow it is replaced, and that goes back to peft's whenever the module is merged, its
adapter disabled or called in another way.

Shapes: N tokens, I and O the layer's inputs and outputs, R the rank.

Sources: Hu et al., "LoRA", arXiv:2106.09685; Liu et al., "DoRA: Weight-Decomposed Low-Rank
Adaptation", arXiv:2402.09353, section 4.3 on the norm that is held fixed.
"""

import types
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

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
        kind: what is folded.
    """

    folded: tuple[str, ...]
    left: dict[str, tuple[str, ...]]
    kind: Literal["LoRA", "DoRA"] = "LoRA"

    def describe(self) -> str:
        """Return one line for the log and the record."""
        parts = []
        for reason, names in self.left.items():
            more = ", ..." if len(names) > _MAX_NAMED else ""
            parts.append(f"{len(names)} with {reason} ({', '.join(names[:_MAX_NAMED])}{more})")
        line = f"{self.kind} folded into one product in {len(self.folded)} layers"
        return line + (f"; left to peft: {'; '.join(parts)}" if parts else "")


def fold_lora(model: nn.Module) -> Folding:
    """Replace the forward of each LoRA or DoRA layer that can be folded; say which they are."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    folded: list[str] = []
    left: defaultdict[str, list[str]] = defaultdict(list)
    kind: Literal["LoRA", "DoRA"] = "LoRA"
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
        if module.lora_variant:
            module.forward, kind = types.MethodType(_dora_forward, module), "DoRA"
        else:
            module.forward = types.MethodType(_forward, module)
        folded.append(short)
    return Folding(tuple(folded), {reason: tuple(names) for reason, names in left.items()}, kind)


def _obstacle(module: Any) -> str | None:
    """Return why a layer can't be folded, or None."""
    from peft.tuners.lora.layer import Linear
    from peft.tuners.lora.variants import DoraLinearVariant

    base: Any = getattr(module, "base_layer", None)
    if type(module) is not Linear or type(base) is not nn.Linear:
        return f"a {type(base).__name__} below peft's {type(module).__name__}"
    if len(module.active_adapters) != 1 or set(module.lora_A) != set(module.active_adapters):
        return "several adapters"
    name = module.active_adapters[0]
    dora = name in module.lora_variant
    if dora and type(module.lora_variant[name]) is not DoraLinearVariant:
        return type(module.lora_variant[name]).__name__.removesuffix("LinearVariant")
    if not isinstance(module.lora_dropout[name], nn.Identity):
        return "dropout"
    inner = (module.lora_A[name], module.lora_B[name])
    if any(type(layer) is not nn.Linear or layer.bias is not None for layer in inner):
        return "a bias beside LoRA's matrices"
    if any(parameter.requires_grad for parameter in base.parameters()):
        return "base weights that are trained"
    if base.weight.dtype not in (_FLOATS[:1] if dora else _FLOATS):
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
    name = _only_adapter(self, args, kwargs)
    if name is None:
        return type(self).forward(self, x, *args, **kwargs)
    base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
    dtype = _settled_type(x, base.weight, down, up)
    if dtype is None:
        return type(self).forward(self, x, *args, **kwargs)
    return _FoldedLinear.apply(x, base.weight, base.bias, down, up, self.scaling[name], dtype)


def _dora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    name = _only_adapter(self, args, kwargs)
    if name is None:
        return type(self).forward(self, x, *args, **kwargs)
    base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
    magnitude = self.lora_magnitude_vector[name].weight
    if _settled_type(x, base.weight, down, up, magnitude) is not torch.float32:
        return type(self).forward(self, x, *args, **kwargs)
    scale = self.scaling[name]
    return _FoldedDora.apply(x, base.weight, base.bias, down, up, magnitude, scale)


def _only_adapter(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return the one adapter of a plain call; None where peft has more to do."""
    active = module.active_adapters
    unusual = args or kwargs or module.disable_adapters or module.merged or len(active) != 1
    return None if unusual or active[0] not in module.lora_A else active[0]


def _settled_type(x: Tensor, *weights: Tensor) -> torch.dtype | None:
    """Return the type of the products; None: peft computes its part in that of the adapter."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype if all(weight.dtype == x.dtype for weight in weights) else None


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
            grad_RN = up.t() @ grad_NO.t()
            grad_x = grad_down = grad_up = None
            if need_x and _pays(x, weight):
                grad_x = grad_NO @ torch.addmm(weight, up, down, alpha=scale)
            elif need_x:
                grad_x = (grad_NO @ weight).addmm_(grad_RN.t(), down, alpha=scale)
            if need_down:
                grad_down = (grad_RN @ x_NI).to(down_RI.dtype).mul_(scale)
            if need_up:
                grad_OR = ((down @ x_NI.t()) @ grad_NO).t()
                grad_up = grad_OR.to(up_OR.dtype, memory_format=torch.contiguous_format).mul_(scale)
        if grad_x is not None:
            grad_x = grad_x.view(x.shape).to(ctx.x_type)
        return grad_x, None, None, grad_down, grad_up, None, None


class _FoldedDora(torch.autograd.Function):
    """x [..., I] -> [..., O] in float32; gradients of x, A, B and the magnitude m [O]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        down_RI: Tensor,
        up_OR: Tensor,
        magnitude_O: Tensor,
        scale: float,
    ) -> Tensor:
        ctx.scale, ctx.x_type = scale, x.dtype
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            turned_OI = torch.addmm(weight_OI, up_OR, down_RI, alpha=scale)
            norm_O = torch.linalg.vector_norm(turned_OI, dim=1)
            unscaled = functional.linear(x, turned_OI)
            ctx.save_for_backward(
                x, weight_OI, down_RI, up_OR, magnitude_O / norm_O, norm_O, unscaled
            )
            y = unscaled * (magnitude_O / norm_O)
            return y if bias_O is None else y.add_(bias_O)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: the decorator has no names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight_OI, down_RI, up_OR, ratio_O, norm_O, unscaled = ctx.saved_tensors
        grad_x = None
        with torch.autocast(x.device.type, enabled=False):
            grad = grad_outputs[0].float()
            x_NI, grad_NO = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
            grad_m = (grad_NO * unscaled.reshape(grad_NO.shape)).sum(0).div_(norm_O)
            ratio_O1 = ratio_O[:, None]
            grad_down = ((ratio_O1 * up_OR).t() @ grad_NO.t()) @ x_NI
            grad_up = ratio_O1 * ((down_RI @ x_NI.t()) @ grad_NO).t()
            if ctx.needs_input_grad[0]:
                turned_OI = torch.addmm(weight_OI, up_OR, down_RI, alpha=ctx.scale)
                grad_x = (grad_NO @ turned_OI.mul_(ratio_O1)).view(x.shape).to(ctx.x_type)
        lora = grad_down.mul_(ctx.scale), grad_up.mul_(ctx.scale)
        return grad_x, None, None, *lora, grad_m, None


def _pays(x: Tensor, weight_OI: Tensor) -> bool:
    """Return whether making the folded weight costs less than adding LoRA's part to each token."""
    outputs, inputs = weight_OI.shape
    num_tokens = x.numel() // inputs
    return x.dtype == torch.float32 and num_tokens * (inputs + outputs) > inputs * outputs
