"""How likely a model finds given continuations of given prompts.

Shape legend: B rows, T tokens, K last positions whose logits are asked for, V vocabulary.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from swiftcore.progress import Progress

# Logits held at once; 32 million float32 are 128 MB.
_MAX_LOGITS = 32_000_000


def log_likelihoods(
    model: PreTrainedModel,
    pairs: Sequence[tuple[list[int], list[int]]],
    batch_size: int,
    progress: Progress,
) -> list[float]:
    """Return the sum of the log-probabilities of each continuation's tokens, in nats.

    Pairs that need the same forward share it: four letters after one prompt cost one.

    Args:
        model: causal language model.
        pairs: token ids of prompt and continuation, neither empty.
        batch_size: most sequences in one forward.
        progress: told how many sequences are done.
    """
    sharing: dict[tuple[int, ...], list[int]] = {}
    for place, (prompt, continuation) in enumerate(pairs):
        sharing.setdefault((*prompt, *continuation[:-1]), []).append(place)
    waiting = sorted(sharing, key=len)
    found = [0.0] * len(pairs)
    done = 0
    with torch.inference_mode():
        while waiting:
            batch = _next_batch(waiting, sharing, pairs, batch_size, model.config.vocab_size)
            del waiting[-len(batch) :]
            keep = _positions_to_keep(batch, sharing, pairs)
            log_probs_BKV = _last_log_probs(model, batch, keep)
            for row, ids in enumerate(batch):
                for place in sharing[ids]:
                    targets = torch.tensor(pairs[place][1], device=log_probs_BKV.device)
                    scores = log_probs_BKV[row, keep - len(targets) :].gather(1, targets[:, None])
                    found[place] = scores.sum(dtype=torch.float64).item()
            done += len(batch)
            progress.update(done, len(sharing), f"{done} prompts scored")
    return found


def _next_batch(
    waiting: Sequence[tuple[int, ...]],
    sharing: dict[tuple[int, ...], list[int]],
    pairs: Sequence[tuple[list[int], list[int]]],
    batch_size: int,
    vocab_size: int,
) -> list[tuple[int, ...]]:
    """Return the longest sequences that fit together, at least one."""
    for size in range(min(batch_size, len(waiting)), 1, -1):
        batch = list(waiting[-size:])
        if size * _positions_to_keep(batch, sharing, pairs) * vocab_size <= _MAX_LOGITS:
            return batch
    return [waiting[-1]]


def _positions_to_keep(
    batch: Sequence[tuple[int, ...]],
    sharing: dict[tuple[int, ...], list[int]],
    pairs: Sequence[tuple[list[int], list[int]]],
) -> int:
    return max(len(pairs[place][1]) for ids in batch for place in sharing[ids])


def _last_log_probs(
    model: PreTrainedModel, batch: Sequence[tuple[int, ...]], keep: int
) -> torch.Tensor:
    """Return log-probabilities [B, K, V] of what follows each of the last tokens.

    Rows are padded at the left, so that the last positions of all stand in one place.
    """
    device, longest = model.device, max(map(len, batch))
    ids_BT = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in batch], device=device)
    lengths = torch.tensor([len(ids) for ids in batch], device=device)
    mask_BT = torch.arange(longest, device=device) >= (longest - lengths)[:, None]
    positions_BT = (mask_BT.long().cumsum(-1) - 1).clamp_min(0)
    output = model(
        input_ids=ids_BT,
        attention_mask=None if bool(mask_BT.all()) else mask_BT,
        position_ids=positions_BT,
        use_cache=False,
        logits_to_keep=keep,
    )
    return output.logits[:, -keep:].float().log_softmax(-1)
