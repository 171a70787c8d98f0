"""Attention for rows that lie side by side: each row by itself, with the model's own attention.

transformers lets a model's attention be named, and asks the same name for the mask. The name
registered here makes the mask once a forward pass, as one mask a row (none where plain causal
attention is meant), and calls the model's own attention row by row. No token of one row is in the
call that another row's tokens are in, so nothing can leak, and nothing of size T x T is made, which
the block mask of transformers' own packed sequences needs. Without a layout all is as before.

Whether an architecture really goes this way can't be read from its name: some mix tokens beside
attention (convolutions, state spaces), build masks themselves, or number positions otherwise. So
`attend_by_row` asks the model: a few rows side by side must give what each gives alone.

Shapes: T tokens of all rows, L tokens of one row.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from swiftcore.errors import UsageError
from swiftcore.training.forward import unwrapped
from swiftcore.training.row_layout import RowLayout, current_layout, laid_out

if TYPE_CHECKING:
    from swiftcore.training.token_group import TokenGroup

_PREFIX = "swiftcore_rows_"
# Attention implementations that can be called with one row's queries, keys, values and mask.
BASES = ("sdpa", "eager")
_PROBED_LENGTHS = (5, 9, 7)
# Tokens of the middle row, from its first, whose logits are traced back to what they depend on.
_TRACED = range(5, 9)
# Largest ||side by side - alone|| / ||alone|| of a row's logits; it finds positions that go on from
# row to row. Rounding gives 1e-6 in float32 and 0.01 in 16 bits, wrong positions 0.1 and more.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUGH_TOLERANCE = 0.05

# (model, what speaks against it) -> the error
Refusal = Callable[[Any, str], UsageError]


@dataclass(frozen=True)
class RowMasks:
    """What stands in the place of an attention mask.

    Args:
        layout: where the rows are.
        masks: a mask [1, 1, L, L] for each row; None is causal attention without further limits.
    """

    layout: RowLayout
    masks: tuple[Tensor | None, ...]


def attend_by_row(model: Any, longest: int = 1) -> str:
    """Make a model take rows side by side, show that they don't see each other, and say so.

    Args:
        model: a causal language model, adapters inside it or not.
        longest: tokens of the longest row there will be.

    Raises:
        UsageError: with this model rows side by side don't give what they give alone.
    """
    causal = unwrapped(model)
    base = exchangeable(causal, longest, _refusal)
    training = causal.training
    causal.eval()
    try:
        with torch.no_grad():
            alone = _logits_alone(causal)
        exchange(causal, base)
        seen, difference = _probe(causal, alone)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as err:
        causal.set_attn_implementation(base)
        raise _refusal(causal, f"{type(err).__name__}: {err}") from err
    finally:
        causal.train(training)
    problem = ""
    if seen:
        shown = ", ".join(map(str, seen))
        problem = f"tokens 5 to 8, the first of a row, depend on tokens {shown}"
    elif not difference <= tolerance(alone[0].dtype):
        problem = f"logits that differ from those of single rows by {difference:.2g} of their size"
    if problem:
        causal.set_attn_implementation(base)
        raise _refusal(causal, problem)
    return (
        f"rows lie side by side without padding, {base} attention row by row; shown on this model: "
        f"no row depends on another, logits as of single rows (difference {difference:.0e})"
    )


def exchangeable(causal: Any, longest: int, refusal: Refusal) -> str:
    """Return the name of a model's attention, which can be exchanged for that of this module.

    Args:
        causal: a causal language model, without what wraps it.
        longest: tokens of the longest row there will be.
        refusal: makes an error of a model and what speaks against it.

    Raises:
        UsageError: it can't.
    """
    base = str(causal.config._attn_implementation).removeprefix(_PREFIX)
    if base not in BASES or not causal._can_set_attn_implementation():
        raise refusal(causal, f"attention {base!r} that can't be exchanged")
    _require_steady_positions(causal, longest, refusal)
    _register(base)
    return base


def exchange(causal: Any, base: str) -> None:
    """Make a model's attention follow the layout of rows, where there is one."""
    causal.set_attn_implementation(_PREFIX + base)


def tolerance(dtype: torch.dtype) -> float:
    """Return how far logits may be from those they should equal, as a share of their size."""
    return _TOLERANCE.get(dtype, _ROUGH_TOLERANCE)


def _require_steady_positions(causal: Any, longest: int, refusal: Refusal) -> None:
    """Refuse rotary embeddings that the longest row of a batch would change for all others."""
    config = causal.config
    whole = getattr(config, "rope_parameters", None) or {}
    for rope in [whole, *(part for part in whole.values() if isinstance(part, dict))]:
        limit = {
            "longrope": rope.get("original_max_position_embeddings"),
            "dynamic": getattr(config, "max_position_embeddings", None),
        }.get(rope.get("rope_type", ""))
        if limit is not None and longest > limit:
            raise refusal(
                causal,
                f"rows of up to {longest} tokens; in a sequence with a row above {limit}, "
                f"{rope['rope_type']} turns all rows otherwise",
            )


def _register(base: str) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    attend: Callable[..., Any] = _attend_eager if base == "eager" else _attend_sdpa
    mask: Callable[..., Any] = _mask_eager if base == "eager" else _mask_sdpa
    AttentionInterface.register(_PREFIX + base, attend)
    AttentionMaskInterface.register(_PREFIX + base, mask)


def _attend_sdpa(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return _attend(sdpa_attention_forward, module, *args, **kwargs)


def _attend_eager(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    # Each architecture's file has its own, under this name.
    attend = sys.modules[type(module).__module__].eager_attention_forward
    return _attend(attend, module, *args, **kwargs)


def _attend(
    attend: Callable[..., Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | RowMasks | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention of all rows, [1, T, heads, width], and no weights."""
    if not isinstance(attention_mask, RowMasks):
        return attend(module, query, key, value, attention_mask, **kwargs)
    lengths, group = list(attention_mask.layout.lengths), attention_mask.layout.group
    if group is not None:
        module, query, key, value = _traded(group, module, query, key, value)
    # split, unlike slices, has one backward that joins the parts, not one full tensor a part.
    parts = zip(
        query.split(lengths, dim=2),
        key.split(lengths, dim=2),
        value.split(lengths, dim=2),
        attention_mask.masks,
        strict=True,
    )
    outputs = [attend(module, q, k, v, mask, **kwargs)[0] for q, k, v, mask in parts]
    joined = torch.cat(outputs, dim=1)
    return joined if group is None else group.to_tokens(joined), None


class _Regrouped:
    """A layer's attention that repeats keys and values another number of times."""

    def __init__(self, module: nn.Module, num_key_value_groups: int) -> None:
        self._module = module
        self.num_key_value_groups = num_key_value_groups

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _traded(
    group: "TokenGroup", module: Any, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Return a layer's attention, queries, keys and values for the heads of this process."""
    num_heads, num_key_heads = query.shape[1], key.shape[1]
    repeats = group.repeats(num_heads, num_key_heads)
    if repeats > 1:
        key, value = (part.repeat_interleave(repeats, dim=1) for part in (key, value))
        module = _Regrouped(module, num_heads // (num_key_heads * repeats))
    return module, group.to_heads(query), group.to_heads(key), group.to_heads(value)


def _mask_sdpa(*args: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    layout = current_layout()
    return sdpa_mask(*args, **kwargs) if layout is None else _row_masks(layout, **kwargs)


def _mask_eager(*args: Any, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Any:
    from transformers.masking_utils import eager_mask

    layout = current_layout()
    if layout is None:
        return eager_mask(*args, dtype=dtype, **kwargs)
    # Eager attention adds its mask and knows of no causal attention without one.
    masks = _row_masks(layout, always=True, **kwargs).masks
    lowest = torch.finfo(dtype).min
    added = [
        torch.zeros_like(m, dtype=dtype).masked_fill_(~m, lowest) for m in masks if m is not None
    ]
    return RowMasks(layout, tuple(added))


def _row_masks(
    layout: RowLayout,
    *,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Tensor],
    device: torch.device | str = "cpu",
    use_vmap: bool = False,
    always: bool = False,
    **_kwargs: Any,
) -> RowMasks:
    if use_vmap:
        raise ValueError("the model lays a mask of its own over the causal one")
    sharers = 1 if layout.group is None else layout.group.size
    if q_length * sharers != layout.num_tokens or kv_length != q_length:
        raise ValueError(f"a mask for {q_length} x {kv_length} of {layout.num_tokens} tokens")
    zero = torch.zeros((), dtype=torch.long, device=device)

    def allowed(queries: Tensor, keys: Tensor) -> Tensor:
        return mask_function(zero, zero, queries, keys)

    masks: list[Tensor | None] = []
    for start, end in layout.bounds:
        places = torch.arange(start, end, device=device)
        # Windows and chunks hide the past from its far end: who sees the row's first token sees
        # all between. So a row is plainly causal when all see its first token and none the next.
        causal = not always and bool(allowed(places, places[:1]).all())
        causal = causal and not bool(allowed(places[:-1], places[1:]).any())
        masks.append(None if causal else allowed(places[:, None], places[None, :])[None, None])
    return RowMasks(layout, tuple(masks))


def _probed_rows(causal: Any) -> list[Tensor]:
    size = int(causal.get_input_embeddings().weight.shape[0])
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(size, (length,), generator=generator) for length in _PROBED_LENGTHS]
    return [row.to(causal.device) for row in rows]


def _logits_alone(causal: Any) -> list[Tensor]:
    return [causal(input_ids=row[None], use_cache=False).logits[0] for row in _probed_rows(causal)]


def _probe(causal: Any, alone: list[Tensor]) -> tuple[list[int], float]:
    """Return which tokens the traced ones see beside themselves, and how far logits are off.

    A gradient tells what a value depends on, however weakly: it is exactly zero where there is no
    way from one to the other. Differences of values drown in rounding when weights are small.
    """
    layout = RowLayout(_PROBED_LENGTHS)
    embedded: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = causal.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad(), laid_out(layout):
            inputs = layout.inputs(torch.cat(_probed_rows(causal))[None])
            logits = causal(**inputs, use_cache=False).logits[0]
            traced = logits[_TRACED.start : _TRACED.stop].float().logsumexp(-1).sum()
            (gradient,) = torch.autograd.grad(traced, embedded[0])
    finally:
        hook.remove()
    dependent = gradient[0].abs().sum(-1).ne(0).nonzero()[:, 0].tolist()
    pairs = zip(logits.detach().split(list(layout.lengths)), alone, strict=True)
    off = max(float((ours - own).norm() / own.norm().clamp_min(1e-30)) for ours, own in pairs)
    return [token for token in dependent if token not in _TRACED], off


def _refusal(causal: Any, found: str) -> UsageError:
    return UsageError(
        f"rows of a {causal.config.model_type} model can't be put side by side",
        where="train.padding_free or train.packing",
        found=found,
        expected="each row by itself, as in a padded batch",
        do="switch train.padding_free and train.packing off; train.group_by_length saves padding",
    )
