"""LoRA starts that look at training rows first: LoRA-GA at gradients, EVA at activations.

Source: Wang et al. 2024, LoRA-GA (arXiv:2407.05000); Paischer et al. 2024, EVA (arXiv:2410.07170).
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TunerSection

GRADIENTS = "lora-ga"
ACTIVATIONS = "eva"
# Rows that EVA goes over until its singular vectors hold still, and rows a forward.
_EVA_ROWS = 512
_EVA_BATCH = 4
_IGNORED = -100
# What the published code calls the scales that peft spells out.
_SCALES = {"gd": "gd_scale", "unit": "unit", "stable": "stable", "weightS": "weight_svd"}

Rows = Sequence[dict[str, Any]]


def require_rows(section: TunerSection, rows: Rows | None) -> Rows:
    """Return the rows that a start looks at.

    Raises:
        UsageError: there is none.
    """
    if rows:
        return rows
    raise UsageError(
        "this start of LoRA looks at training rows, and there are none at hand",
        where="tuner.init_weights",
        found=section.init_weights,
        do="run it through the train stage, or choose another start",
    )


def gradient_config(section: TunerSection) -> Any:
    """Return peft's settings of LoRA-GA."""
    from peft import LoraGAConfig

    return LoraGAConfig(
        direction=section.lora_ga_direction,
        scale=_SCALES[section.lora_ga_scale],  # pyright: ignore[reportArgumentType]
        stable_gamma=section.lora_ga_stable_gamma,
    )


def estimate_gradients(model: Any, config: Any, section: TunerSection, rows: Rows) -> None:
    """Leave the mean gradient of the first rows at each layer that gets an update."""
    from peft.tuners.lora import preprocess_loraga

    size, length = section.lora_ga_batch_size, section.lora_ga_max_length
    device = next(model.parameters()).device

    def passes() -> None:
        for batch in islice(_batches(rows, size, length, device), section.lora_ga_iters):
            model(**batch, use_cache=False).loss.backward()

    preprocess_loraga(model, config, passes)


def forget_gradients(model: nn.Module) -> None:
    """Free what `estimate_gradients` left."""
    for module in model.modules():
        vars(module).pop("_peft_loraga_grad", None)


def start_from_activations(adapted: Any, rows: Rows) -> None:
    """Set A to the main directions of the inputs; layers with more of them get more rank."""
    from peft import initialize_lora_eva_weights

    device = next(adapted.parameters()).device
    first = [rows[place] for place in range(min(len(rows), _EVA_ROWS))]
    batches = list(_batches(first, _EVA_BATCH, None, device))
    initialize_lora_eva_weights(adapted, batches, show_progress_bar=False)


def _batches(
    rows: Rows, size: int, length: int | None, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Yield the rows in their order, cut to a length, padded on the right."""
    for start in range(0, len(rows), size):
        chosen = [rows[place] for place in range(start, min(start + size, len(rows)))]
        ids = [row["input_ids"][:length] for row in chosen]
        labels = [row["labels"][:length] for row in chosen]
        if all(label == _IGNORED for line in labels for label in line[1:]):
            continue
        yield {
            "input_ids": _padded(ids, 0, device),
            "labels": _padded(labels, _IGNORED, device),
            "attention_mask": _padded([[1] * len(line) for line in ids], 0, device),
        }


def _padded(lines: list[list[int]], filler: int, device: torch.device) -> Tensor:
    longest = max(map(len, lines))
    return torch.tensor([line + [filler] * (longest - len(line)) for line in lines], device=device)
