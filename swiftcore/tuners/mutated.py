"""LoRA starts that change the base: PiSSA, OLoRA and LoRA-GA take out of it what A and B start as.

Training then sees W - s B0 A0 + s B A. An adapter of B and A alone would need that changed base
again, so what is saved is the difference to the start, B A - B0 A0, as one LoRA of twice the rank
that goes on the base as it was.

Source: Meng et al. 2024, PiSSA (arXiv:2404.02948); Büyükakyüz 2024, OLoRA (arXiv:2406.01775).
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swiftcore.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json, write_json
from swiftcore.recipe.sections import TunerSection

_START = "swift_start"


def changes_base(section: TunerSection) -> bool:
    """Tell whether the start of this tuner subtracts something from the base's weights."""
    return section.train_type == "lora" and section.init_weights.startswith(
        ("pissa", "olora", "lora-ga")
    )


def remember_start(adapted: Any) -> None:
    """Keep A and B as they are now, by the names they are saved under."""
    setattr(adapted, _START, _matrices(adapted))


def save_difference(adapted: Any, folder: Path) -> None:
    """Rewrite a saved adapter as the difference to its start, if it started from the base."""
    from safetensors.torch import load_file, save_file

    start: dict[str, Tensor] | None = getattr(adapted, _START, None)
    if start is None:
        return
    weights = load_file(folder / ADAPTER_WEIGHTS)
    for name, first in start.items():
        before = first.to(weights[name])
        by_rows = ".lora_A." in name
        weights[name] = torch.cat(
            [weights[name], before if by_rows else -before], dim=0 if by_rows else 1
        )
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = read_json(folder / ADAPTER_CONFIG)
    config["init_lora_weights"] = True
    config["r"] *= 2
    # The scale stays: alpha / r, or alpha / sqrt(r).
    config["lora_alpha"] *= math.sqrt(2) if config["use_rslora"] else 2
    write_json(folder / ADAPTER_CONFIG, config)


def _matrices(adapted: Any) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {
        name: tensor.detach().clone()
        for name, tensor in state.items()
        if ".lora_A." in name or ".lora_B." in name
    }
