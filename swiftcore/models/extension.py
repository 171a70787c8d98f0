"""A base model with more tokens or longer positions than it came with, as a folder of its own.

Everything after it (encoding, training, merging, serving) sees that folder as the base, so nothing
has to repeat what was added.
"""

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.models.files import copy_tokenizer_files, read_json, require_model_folder, write_json
from swiftcore.models.loading import is_quantized, load_model, load_tokenizer
from swiftcore.models.quiet import without_progress_bars
from swiftcore.models.tokenizer import save_tokenizer

# Rows of the embedding are made in multiples of this, as ms-swift does, for fast products.
_ROWS_MULTIPLE = 128
_SEED = 42
_KEPT_TYPE = "tokenizer_class"


@dataclass(frozen=True)
class Extension:
    """What is added to a model.

    Args:
        tokens: words that become one token each.
        rope: settings of transformers' rope_parameters that replace the model's.
        max_positions: longest sequence afterwards; None leaves it.
    """

    tokens: tuple[str, ...] = ()
    rope: dict[str, Any] = field(default_factory=dict)
    max_positions: int | None = None


def listed_tokens(written: list[str]) -> tuple[str, ...]:
    """Return the tokens that a list names; an entry that ends with .txt is a file of them.

    Raises:
        UsageError: a file can't be read.
    """
    found: list[str] = []
    for entry in written:
        if not entry.endswith(".txt"):
            found.append(entry)
            continue
        try:
            found += Path(entry).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as err:
            raise UsageError(
                "the list of new tokens can't be read", where="model.new_special_tokens", found=err
            ) from err
    return tuple(dict.fromkeys(found))


def rope_extension(written: str | dict[str, Any]) -> dict[str, Any]:
    """Return what a recipe says of rotary positions, before a model is known.

    The factor of a word follows from the longest sequence, once the model is there.

    Raises:
        UsageError: text that is neither a word nor a JSON object.
    """
    if isinstance(written, dict):
        return dict(written)
    if not written.lstrip().startswith("{"):
        return {"rope_type": written}
    try:
        return dict(json.loads(written))
    except ValueError as err:
        raise UsageError(
            "this is no JSON object", where="model.rope_scaling", found=f"{written}: {err}"
        ) from err


def extend_model(folder: Path, out: Path, extension: Extension) -> dict[str, float]:
    """Write the model of a folder into `out`, with what is added, and return what changed.

    Raises:
        ModelMissing: there is no model in the folder.
        UsageError: the model knows the tokens already, or has no such positions.
    """
    require_model_folder(folder)
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, float] = {}
    if extension.tokens:
        figures = _add_tokens(folder, out, extension.tokens)
    else:
        for file in sorted(folder.iterdir()):
            if file.is_file() and (file.suffix == ".safetensors" or ".safetensors." in file.name):
                shutil.copyfile(file, out / file.name)
        for name in ("config.json", "generation_config.json"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, out / name)
        copy_tokenizer_files(folder, out)
    if extension.rope:
        figures["rope_factor"] = _stretch(out, extension)
    return figures


def _add_tokens(folder: Path, out: Path, words: tuple[str, ...]) -> dict[str, float]:
    import torch
    from transformers import AddedToken

    if is_quantized(folder):
        raise UsageError(
            "tokens can't be added to a quantized model",
            where="model.new_special_tokens",
            found=str(folder),
            do="add them to the unquantized model, and quantize the result",
        )
    tokenizer: Any = load_tokenizer(folder)
    # Not special: a control token is never read from text, and these are words of the answers.
    added = [AddedToken(word, special=False, normalized=False) for word in words]
    if not (count := tokenizer.add_tokens(added)):
        raise UsageError(
            "the model knows these tokens already, so nothing would be added",
            where="model.new_special_tokens",
            found=", ".join(words),
            do="leave the setting out",
        )
    model: Any = load_model(folder)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_SEED)
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=_ROWS_MULTIPLE)
    with without_progress_bars():
        model.save_pretrained(out)
    copy_tokenizer_files(folder, out)
    kind = read_json(folder / "tokenizer_config.json").get(_KEPT_TYPE)
    save_tokenizer(tokenizer, out)
    if kind:
        config = read_json(out / "tokenizer_config.json")
        write_json(out / "tokenizer_config.json", {**config, _KEPT_TYPE: kind})
    for name in ("config.json", "generation_config.json"):
        if (out / name).is_file():
            write_json(out / name, read_json(out / name))
    resized = model.get_input_embeddings().weight.shape[0]
    return {"added_tokens": float(count), "embedding_rows": float(resized)}


def _stretch(folder: Path, extension: Extension) -> float:
    """Write rotary settings into config.json, in the form that transformers 4 and 5 both read."""
    raw = read_json(folder / "config.json")
    before = _rope_of(folder)
    original = int(raw.get("max_position_embeddings") or 0)
    rope = dict(extension.rope)
    if extension.max_positions and "factor" not in rope:
        rope["factor"] = float(max(math.ceil(extension.max_positions / original), 1))
    if rope.get("rope_type") == "yarn":
        rope.setdefault("original_max_position_embeddings", original)
    theta = before.get("rope_theta", raw.get("rope_theta"))
    raw.pop("rope_scaling", None)
    raw["rope_parameters"] = {"rope_theta": theta, **rope}
    # Dynamic scaling begins beyond the length that the configuration states.
    if rope.get("rope_type") != "dynamic":
        stretched = extension.max_positions or int(original * rope.get("factor", 1))
        raw["max_position_embeddings"] = max(stretched, original)
    write_json(folder / "config.json", raw)
    _require_valid(folder, rope)
    return float(rope.get("factor", 1.0))


def _rope_of(folder: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    found = getattr(config, "rope_parameters", None)
    if not found or "rope_type" not in found:
        raise UsageError(
            "this model has no rotary positions that one setting could stretch",
            where="model.rope_scaling",
            found=f"{config.model_type}: rope_parameters {found}",
            expected="a model with the same rotary positions in all layers",
            do="leave model.rope_scaling out",
        )
    return dict(found)


def _require_valid(folder: Path, rope: dict[str, Any]) -> None:
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    known = sorted(ROPE_INIT_FUNCTIONS)
    try:
        if rope.get("rope_type") not in known:
            raise ValueError(f"rope_type {rope.get('rope_type')}")
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (KeyError, ValueError, TypeError) as err:
        raise UsageError(
            "transformers refuses these rotary positions",
            where="model.rope_scaling",
            found=err,
            expected=f"a rope_type of {', '.join(known)}, with its settings",
            do="mend model.rope_scaling",
        ) from err
