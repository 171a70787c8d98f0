"""What AdaLoRA does beside the forward pass: a term of the loss, and cuts after each step.

peft writes the pattern of the ranks into its configuration, and from then on saves smaller matrices
than it can load into a model in training. Here a cut rank is a zero in E, and every matrix keeps
its shape, so that a checkpoint loads and a merge sums.

Source: Zhang et al. 2023, AdaLoRA (arXiv:2303.10512).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STATE_FILE = "adalora_state.safetensors"
_AVERAGES = ("exp_avg_ipt", "exp_avg_unc")
_CUT = "cut"


class RankBudget:
    """Cuts the ranks of an AdaLoRA model as training goes on.

    Args:
        adapted: the model, as peft wrapped it.
    """

    def __init__(self, adapted: Any) -> None:
        self._model = adapted.base_model.model
        self._allocator = adapted.base_model.rankallocator
        self._config = adapted.peft_config["default"]
        self._cut: dict[str, Tensor] = {}

    @classmethod
    def of(cls, model: Any) -> "RankBudget | None":
        """Return the budget of an AdaLoRA model, None for any other."""
        config = getattr(model, "peft_config", {}).get("default")
        return cls(model) if config is not None and config.peft_type == "ADALORA" else None

    def penalty(self) -> Tensor:
        """Return orth_reg_weight times the mean of |P'P - I| and |QQ' - I|, over all matrices."""
        norms = [
            torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype))
            for name, weight in self._model.named_parameters()
            for gram in _gram(name, weight)
        ]
        return self._config.orth_reg_weight * torch.stack(norms).mean()

    def after_step(self, step: int) -> None:
        """Cut ranks. Gradients have to be there still; `step` counts from 0."""
        last_cut = self._config.total_step - self._config.tfinal
        if step < last_cut:
            self._allocator.update_and_allocate(self._model, step)
        elif step == last_cut:
            self._allocator.update_and_allocate(self._model, step, force_mask=True)
            self._cut = {name: e.detach() == 0 for name, e in self._diagonals()}
        else:
            # The optimizer's momentum moves what was cut before.
            with torch.no_grad():
                for name, e in self._diagonals():
                    e.masked_fill_(self._cut[name], 0.0)

    def save(self, folder: Path) -> None:
        """Write the running averages into a checkpoint."""
        from safetensors.torch import save_file

        state = {
            f"{kind}:{name}": value.contiguous()
            for kind in _AVERAGES
            for name, value in getattr(self._allocator, kind).items()
        }
        state |= {f"{_CUT}:{name}": value for name, value in self._cut.items()}
        save_file(state, folder / _STATE_FILE)

    def load(self, folder: Path) -> None:
        """Go on with the running averages of a checkpoint."""
        from safetensors.torch import load_file

        for key, value in load_file(folder / _STATE_FILE).items():
            kind, _, name = key.partition(":")
            if kind == _CUT:
                self._cut[name] = value
                continue
            getattr(self._allocator, kind)[name] = value
            self._allocator.ipt[name] = torch.zeros_like(value)

    def _diagonals(self) -> list[tuple[str, Tensor]]:
        return [(name, p) for name, p in self._model.named_parameters() if ".lora_E." in name]


def _gram(name: str, weight: Tensor) -> list[Tensor]:
    if ".lora_A." in name:
        return [weight @ weight.T]
    return [weight.T @ weight] if ".lora_B." in name else []
