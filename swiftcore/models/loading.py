"""Loading models and tokenizers from local folders: safetensors only, no code from the folder.

A checkpoint that lacks a tensor is refused. transformers would fill the gap with random numbers and
a warning, and the damage would show as a bad score much later.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import ArtifactDamaged, ModelMissing, SwiftError, UsageError
from swiftcore.lazy import uncollected
from swiftcore.models.facts import safetensors_header
from swiftcore.models.files import (
    ADAPTER_WEIGHTS,
    read_json,
    require_adapter_folder,
    require_model_folder,
)
from swiftcore.models.quantizing import LoadQuantization, require_reader
from swiftcore.models.quiet import without_progress_bars
from swiftcore.models.tasks import auto_class, head_options, is_new_head, read_task
from swiftcore.recipe.tasks import TEXT, Task

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a model or adapter folder.

    Raises:
        ModelMissing: the folder holds no tokenizer.
        ArtifactDamaged: its files can't be read.
    """
    from transformers import AutoTokenizer

    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise ModelMissing(
            "the folder holds no tokenizer",
            where=folder,
            expected="tokenizer.json and tokenizer_config.json",
            do="copy the tokenizer files of the model into this folder",
        )
    with _as_swift_error(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_model(
    folder: Path,
    *,
    dtype: "str | torch.dtype | None" = None,
    device: str = "cpu",
    attn_impl: str | None = None,
    quantization: LoadQuantization | None = None,
    task: Task | None = None,
) -> "PreTrainedModel":
    """Return a model in evaluation mode, with plain `from_pretrained`.

    Args:
        folder: model folder.
        dtype: type of the weights; None keeps the stored one.
        device: torch device string.
        attn_impl: attention implementation; None leaves the choice to transformers.
        quantization: how weights are held in memory; None is as they are stored.
        task: what it is loaded for, where the folder may lack the head: that starts with random
            weights. None takes what the folder was trained for, a causal language model unless it
            says otherwise.

    Raises:
        ModelMissing: there is no model in the folder.
        UsageError: its weights are pickles, its architecture needs code from the folder, or they
            are quantized already and can't be once more.
        ArtifactDamaged: files can't be read, or weights are missing from them.
    """
    folder = require_model_folder(Path(folder))
    options: dict[str, Any] = {"attn_implementation": attn_impl} if attn_impl else {}
    known = task or read_task(folder)
    options |= head_options(known)
    require_reader(folder)
    quantized = is_quantized(folder) or quantization is not None
    if quantization is not None:
        _refuse_second_quantization(folder)
        default = _dtype_name(dtype) or read_json(folder / "config.json").get("dtype") or "float32"
        options["quantization_config"] = quantization.config(default)
    if quantized:
        # bitsandbytes places weights itself and refuses a later `.to(device)`.
        options["device_map"] = {"": device}
        # It warns at each int8 product that float32 is cast.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    _import_transformers()
    with _as_swift_error(folder), without_progress_bars():
        loaded: Any = auto_class(known, folder).from_pretrained(
            folder,
            dtype=_torch_dtype(dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    model, info = loaded
    _refuse_gaps(folder, _without_new_head(model, info, task))
    return (model if quantized else model.to(device)).eval()


def _import_transformers() -> None:
    """Import what every model needs, where nothing has yet: the start of most stages."""
    if "transformers.modeling_utils" not in sys.modules:
        with uncollected():
            import_module("transformers.modeling_utils")


def load_adapted_model(
    base: Path,
    adapter: Path,
    *,
    dtype: "str | torch.dtype | None" = None,
    device: str = "cpu",
    attn_impl: str | None = None,
) -> "PeftModel":
    """Return a base model with an adapter on it, in evaluation mode.

    Raises:
        ModelMissing: base or adapter is not there.
        UsageError: the adapter does not fit this base.
        ArtifactDamaged: files can't be read.
    """
    task = read_task(require_adapter_folder(Path(adapter)))
    model = load_model(base, dtype=dtype, device=device, attn_impl=attn_impl, task=task)
    return put_adapter(model, base, adapter).eval()


def put_adapter(
    model: "PreTrainedModel", base: Path, adapter: Path, *, is_trainable: bool = False
) -> "PeftModel":
    """Return a loaded base model with an adapter of peft over it.

    Raises:
        ModelMissing: the adapter is not there.
        UsageError: it does not fit this base.
        ArtifactDamaged: its files can't be read.
    """
    from peft import PeftModel

    adapter = require_adapter_folder(Path(adapter))
    header = safetensors_header(adapter / ADAPTER_WEIGHTS)
    try:
        with without_progress_bars():
            adapted = PeftModel.from_pretrained(
                model, str(adapter), local_files_only=True, is_trainable=is_trainable
            )
    except (RuntimeError, ValueError, KeyError) as err:
        raise _misfit(base, adapter, str(err).strip().splitlines()[-1]) from err
    _refuse_unmatched(adapted, header, base, adapter)
    return adapted


def is_quantized(folder: Path) -> bool:
    """Return whether the weights in a model folder are stored in quantized form."""
    return bool(read_json(folder / "config.json").get("quantization_config"))


def _refuse_second_quantization(folder: Path) -> None:
    if is_quantized(folder):
        raise UsageError(
            "the model is quantized already",
            where="model.quant_method",
            found=folder,
            do="leave model.quant_method out; adapters train over these weights as they are",
        )


def _dtype_name(dtype: "str | torch.dtype | None") -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _torch_dtype(dtype: "str | torch.dtype | None") -> "str | torch.dtype":
    import torch

    if dtype is None:
        return "auto"
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def _without_new_head(model: Any, info: dict[str, Any], task: Task | None) -> dict[str, Any]:
    """Return what loading found without the weights of a head that is still to be trained."""
    missing = [str(key) for key in info.get("missing_keys") or ()]
    return info | {"missing_keys": [n for n in missing if not is_new_head(n, model, task or TEXT)]}


def _refuse_gaps(folder: Path, info: dict[str, Any]) -> None:
    gaps = sorted(str(key) for key in info.get("missing_keys") or ())
    gaps += sorted(str(key) for key in info.get("mismatched_keys") or ())
    if gaps:
        raise ArtifactDamaged(
            f"{len(gaps)} weights are missing, or shaped unlike what config.json says",
            where=folder,
            found=", ".join(gaps[:5]),
            do="copy or download the folder again",
        )


def _refuse_unmatched(
    adapted: "PeftModel", header: dict[str, dict[str, Any]], base: Path, adapter: Path
) -> None:
    from peft import get_peft_model_state_dict

    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    odd = sorted(expected.symmetric_difference(header))
    if odd:
        raise _misfit(base, adapter, f"{len(odd)} tensors without a partner: {', '.join(odd[:3])}")


def _misfit(base: Path, adapter: Path, found: str) -> UsageError:
    return UsageError(
        "the adapter does not fit this base model",
        where=f"{adapter} on {base}",
        found=found,
        expected="the base model that the adapter was trained on",
        do="name that base model, or train the adapter again on this one",
    )


@contextmanager
def _as_swift_error(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except SwiftError:
        raise
    except SafetensorError as err:
        raise ArtifactDamaged(
            "the weights can't be read", where=folder, found=err, do="copy the model again"
        ) from err
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as err:
        found = f"{type(err).__name__}: {err}"
        if "trust_remote_code" in found or "does not recognize this architecture" in found:
            raise UsageError(
                "the architecture is not part of transformers, and code from a model folder is "
                "never run",
                where=folder,
                found=read_json(folder / "config.json").get("model_type"),
                do="use a model that transformers knows",
            ) from err
        raise ArtifactDamaged(
            "the files of the folder can't be loaded",
            where=folder,
            found=found[:500],
            do="copy or download the folder again",
        ) from err
