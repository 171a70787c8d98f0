"""Adapter folders of every tuner: what is written into one, and how it comes back over its base."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.models import load_adapted_model, load_model
from swiftcore.models.files import require_adapter_folder
from swiftcore.models.tasks import read_task
from swiftcore.tuners.mutated import save_difference
from swiftcore.tuners.own import is_own, is_own_folder, load_own, merge_own, save_own

if TYPE_CHECKING:
    import torch
    from torch import nn


def save_adapter(model: Any, folder: Path) -> None:
    """Write what the tuner of a prepared model trained, without the base, into a folder."""
    if is_own(model):
        save_own(model, folder)
        return
    model.save_pretrained(folder, save_embedding_layers=False)
    save_difference(model, folder)


def load_adapter(
    base: Path,
    adapter: Path,
    *,
    dtype: "str | torch.dtype | None" = None,
    device: str = "cpu",
) -> "nn.Module":
    """Return a base model with the adapter of any tuner over it, in evaluation mode.

    Raises:
        ModelMissing: base or adapter is not there.
        UsageError: the adapter does not fit this base.
        ArtifactDamaged: files can't be read.
    """
    if not is_own_folder(require_adapter_folder(Path(adapter))):
        return load_adapted_model(base, adapter, dtype=dtype, device=device)
    model = load_model(base, dtype=dtype, device=device, task=read_task(adapter))
    return load_own(model, adapter).to(device)


def merge_tuner(adapted: Any) -> Any:
    """Return the plain model that answers as a base with its adapter does; `adapted` is used up.

    Raises:
        UsageError: the tuner can't be folded into weights.
    """
    if is_own(adapted):
        return merge_own(adapted)
    _drop_second_update(adapted)
    return adapted.merge_and_unload(safe_merge=True)


def _drop_second_update(adapted: Any) -> None:
    """Keep one update of a weight that embedding and output head share; peft would add it twice."""
    base = adapted.get_base_model()
    parts = base.get_input_embeddings(), base.get_output_embeddings()
    first, second = (getattr(part, "base_layer", None) for part in parts)
    if second is not None and first is not None and first.weight is second.weight:
        base.set_output_embeddings(second)
