"""Making a model take its part of each sequence, and showing that it then computes the same.

That a model may be given a stretch of tokens and trade around attention can't be read from its
name: some mix tokens elsewhere, or number them by themselves. So a few tokens go through the model
at hand both ways, whole in each process and shared by all.

Shapes: B rows, T tokens of a row, S those of one process, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from swiftcore.errors import UsageError
from swiftcore.training.distributed.world import World
from swiftcore.training.forward import unwrapped
from swiftcore.training.row_attention import exchange, exchangeable, tolerance
from swiftcore.training.row_layout import RowLayout, laid_out
from swiftcore.training.token_group import TokenGroup

# Of a layer: queries, keys and values one way, what attention made of them the other way.
_TRADES_OF_A_LAYER = 4
# Rows, and tokens of a row for each process; one less makes a last stretch that is filled up.
_PROBED_ROWS, _PROBED_TOKENS = 2, 6


def share_tokens(model: Any, group: TokenGroup, world: World, longest: int) -> str:
    """Make a model take stretches of sequences, show that they give what the whole gives, say so.

    Args:
        model: a causal language model, adapters inside it or not.
        group: the processes that share tokens with this one.
        world: all processes; each has to call this at the same point.
        longest: tokens of the longest row there will be.

    Raises:
        UsageError: heads can't be dealt out, or shared tokens don't give what whole rows give.
    """
    causal = unwrapped(model)
    _require_heads(causal, group)
    base = exchangeable(causal, longest, _refusal)
    training = causal.training
    causal.eval()
    try:
        with torch.no_grad():
            found = _difference(causal, base, group)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as err:
        raise _refusal(causal, f"{type(err).__name__}: {err}") from err
    finally:
        causal.train(training)
    layers, trades = causal.config.get_text_config().num_hidden_layers, group.num_trades
    if trades != _TRADES_OF_A_LAYER * layers:
        raise _refusal(causal, f"{trades} trades between processes in {layers} layers")
    largest = max(world.gather(found))
    if not largest <= tolerance(causal.dtype):
        raise _refusal(
            causal, f"logits that differ from those of whole rows by {largest:.2g} of their size"
        )
    return (
        f"{group.size} processes share the tokens of each sequence (Ulysses); shown on this model: "
        f"logits as of whole rows (difference {largest:.0e})"
    )


def _require_heads(causal: Any, group: TokenGroup) -> None:
    config = causal.config.get_text_config()
    num_heads = config.num_attention_heads
    group.repeats(num_heads, getattr(config, "num_key_value_heads", None) or num_heads)


def _difference(causal: Any, base: str, group: TokenGroup) -> float:
    """Exchange the attention and return ||shared - whole|| / ||whole|| of this process's logits."""
    size = int(causal.get_input_embeddings().weight.shape[0])
    num_tokens = _PROBED_TOKENS * group.size - 1
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(size, (_PROBED_ROWS, num_tokens), generator=generator).to(causal.device)
    whole_BTV: Tensor = causal(input_ids=ids_BT, use_cache=False).logits
    exchange(causal, base)
    group.num_trades = 0
    layout = RowLayout.shared((num_tokens,), group)
    with laid_out(layout):
        own_BSV = causal(**layout.inputs(ids_BT), use_cache=False).logits
    start = group.rank * own_BSV.shape[1]
    expected_BSV = whole_BTV[:, start : start + own_BSV.shape[1]].float()
    # The last process has what was added besides.
    off_BSV = own_BSV[:, : expected_BSV.shape[1]].float() - expected_BSV
    return float(off_BSV.norm() / expected_BSV.norm().clamp_min(1e-30))


def _refusal(causal: Any, found: str) -> UsageError:
    return UsageError(
        f"processes can't share the tokens of a {causal.config.model_type} model",
        where="train.sequence_parallel_size",
        found=found,
        expected="each token as in a process of its own",
        do="leave train.sequence_parallel_size out; train.fsdp saves memory, too",
    )
