"""Shifted sparse attention (S2-Attn): in training, a row's tokens attend within a quarter of it.

The tokens of a row lie in four groups of equal length and attend within their group; for the second
half of the heads the groups are shifted by half a group, so that neighbours meet. Where the shift
puts the row's last tokens before its first ones, the published code lets the first see the last.
Here nobody sees what comes later: that group falls into two, as in the paper's second variant.

Outside of training the model attends as it always does. Rows whose length four does not divide are
filled up at their end, with keys that nobody sees.

Source: Chen et al. 2023, LongLoRA (arXiv:2309.12307), section 3.2 and appendix B.

Shapes: B rows, T tokens, N groups of G tokens each.
"""

import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swiftcore.errors import UsageError

_PREFIX = "swiftcore_shifted_"
_BASES = ("sdpa", "eager")
NUM_GROUPS = 4
# What some architectures ask of attention beside a mask and a scale.
_EXTRAS = ("softcap", "s_aux", "position_bias")
_PROBED_TOKENS = 8
_calls: ContextVar[list[nn.Module] | None] = ContextVar("shifted_attention_calls", default=None)


@dataclass
class DeferredMask:
    """What stands in the place of an attention mask until the layer says which one it needs.

    Args:
        make: makes the model's own mask.
        allowed: tells for token numbers of queries and keys which pairs may meet.
        num_tokens: T.
        real: [B, T], false for padding; None where there is none.
    """

    make: Callable[[], Tensor | None]
    allowed: Callable[[Tensor, Tensor], Tensor]
    num_tokens: int
    real: Tensor | None
    _whole: list[Tensor | None] = field(default_factory=list)
    _groups: dict[int, Tensor] = field(default_factory=dict)

    @property
    def group_size(self) -> int:
        """Return G, an even number."""
        return 2 * -(-self.num_tokens // (2 * NUM_GROUPS))

    def whole(self) -> Tensor | None:
        """Return the model's own mask."""
        if not self._whole:
            self._whole.append(self.make())
        return self._whole[0]

    def groups(self, shift: int, device: torch.device) -> Tensor:
        """Return [B or 1, N, G, G], true where a key is seen, for tokens shifted to the left."""
        if shift not in self._groups:
            places = torch.arange(NUM_GROUPS * self.group_size, device=device).roll(-shift)
            places = places.view(NUM_GROUPS, self.group_size)
            inside = places.clamp(max=self.num_tokens - 1)
            seen = self.allowed(inside[:, :, None], inside[:, None, :])[None]
            # The last group holds the row's end and, behind it, its start: two groups.
            start = places < shift
            seen = seen & (start[:, :, None] == start[:, None, :])
            seen = seen & (places < self.num_tokens)[None, :, None, :]
            if self.real is not None:
                seen = seen & self.real.to(device)[:, inside][:, :, None, :]
            # A query that sees nothing has no softmax; fillers see themselves.
            own = torch.eye(self.group_size, dtype=torch.bool, device=device)
            self._groups[shift] = seen | own
        return self._groups[shift]


def attend_in_groups(model: Any) -> None:
    """Make a causal language model use shifted sparse attention whenever it trains.

    Raises:
        UsageError: its attention can't be exchanged.
    """
    config: Any = getattr(model, "config", None)
    base = str(getattr(config, "_attn_implementation", None)).removeprefix(_PREFIX)
    if base not in _BASES or not model._can_set_attn_implementation():
        raise _refusal(config, f"attention {base!r} that can't be exchanged")
    _register(base)
    model.set_attn_implementation(_PREFIX + base)
    if model.device.type == "meta":
        return
    expected = config.get_text_config().num_hidden_layers
    calls: list[nn.Module] = []
    token = _calls.set(calls)
    training = model.training
    try:
        ids = torch.arange(_PROBED_TOKENS, device=model.device)[None]
        with torch.no_grad():
            model.eval()(input_ids=ids, use_cache=False)
    finally:
        _calls.reset(token)
        model.train(training)
    if len(calls) != expected:
        model.set_attn_implementation(base)
        raise _refusal(config, f"{len(calls)} of {expected} blocks whose attention is exchanged")


def _register(base: str) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    attend = _eager if base == "eager" else _sdpa
    mask = _eager_mask if base == "eager" else _sdpa_mask
    AttentionInterface.register(_PREFIX + base, attend)  # pyright: ignore[reportArgumentType]
    AttentionMaskInterface.register(_PREFIX + base, mask)


def _sdpa(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return _attend(sdpa_attention_forward, module, *args, **kwargs)


def _eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    # Each architecture's file has its own, under this name.
    attend = sys.modules[type(module).__module__].eager_attention_forward
    return _attend(attend, module, *args, **kwargs)


def _sdpa_mask(*args: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    return _deferred(sdpa_mask, *args, **kwargs)


def _eager_mask(*args: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import eager_mask

    return _deferred(eager_mask, *args, **kwargs)


def _deferred(
    make: Callable[..., Tensor | None],
    *args: Any,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    **kwargs: Any,
) -> Any:
    same = {
        "q_length": q_length,
        "kv_length": kv_length,
        "mask_function": mask_function,
        "attention_mask": attention_mask,
        "use_vmap": use_vmap,
        **kwargs,
    }
    if use_vmap or q_length != kv_length:
        # Masks of a model's own, and generation, which is no training.
        return make(*args, **same)
    device = kwargs.get("device", "cpu")
    zero = torch.zeros((), dtype=torch.long, device=device)
    return DeferredMask(
        make=lambda: make(*args, **same),
        allowed=lambda queries, keys: mask_function(zero, zero, queries, keys),
        num_tokens=q_length,
        real=None if attention_mask is None else attention_mask.bool(),
    )


def _attend(
    attend: Callable[..., Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return the attention, [B, T, heads, width], and weights where the model's own gives them."""
    deferred = isinstance(attention_mask, DeferredMask)
    calls = _calls.get()
    if calls is not None and deferred:
        calls.append(module)
    if not module.training:
        mask = attention_mask.whole() if deferred else attention_mask
        return attend(module, query, key, value, mask, **kwargs)
    extras = [name for name in _EXTRAS if kwargs.get(name) is not None]
    if not deferred or extras:
        what = ", ".join(extras) or "a mask of the model's own"
        raise _refusal(getattr(module, "config", None), f"attention with {what}")
    scaling, dropout = kwargs.get("scaling"), kwargs.get("dropout", 0.0)
    return shifted_attention(query, key, value, attention_mask, scaling, dropout), None


def shifted_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: DeferredMask,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Return [B, T, heads, width] of queries [B, heads, T, width] and their keys and values."""
    num_heads, num_tokens = query.shape[1:3]
    size = mask.group_size
    filler = NUM_GROUPS * size - num_tokens
    each = num_heads // key.shape[1]
    parts = [query, key.repeat_interleave(each, dim=1), value.repeat_interleave(each, dim=1)]
    parts = [functional.pad(part, (0, 0, 0, filler)) for part in parts]
    half = num_heads // 2
    outputs = []
    for heads, shift in ((slice(0, half), 0), (slice(half, None), size // 2)):
        grouped = [_grouped(part[:, heads].roll(-shift, dims=2)) for part in parts]
        seen = mask.groups(shift, query.device)
        seen = seen.expand(len(query), -1, -1, -1).flatten(0, 1)[:, None]
        found = functional.scaled_dot_product_attention(
            *grouped, attn_mask=seen, dropout_p=dropout, scale=scaling
        )
        outputs.append(_joined(found).roll(shift, dims=2))
    return torch.cat(outputs, dim=1)[:, :, :num_tokens].transpose(1, 2).contiguous()


def _grouped(x: Tensor) -> Tensor:
    """[B, heads, N * G, width] -> [B * N, heads, G, width]."""
    return x.unflatten(2, (NUM_GROUPS, -1)).transpose(1, 2).flatten(0, 1)


def _joined(x: Tensor) -> Tensor:
    """[B * N, heads, G, width] -> [B, heads, N * G, width]."""
    return x.unflatten(0, (-1, NUM_GROUPS)).transpose(1, 2).flatten(2, 3)


def _refusal(config: Any, found: str) -> UsageError:
    return UsageError(
        "shifted sparse attention does not go with this model",
        where="tuner.train_type longlora",
        found=f"{getattr(config, 'model_type', 'a model')}: {found}",
        expected="a Llama-like model with sdpa or eager attention",
        do="use train_type lora",
    )
