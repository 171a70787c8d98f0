"""Which files a model folder and an adapter folder consist of, and what to say when one lacks."""

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

from swiftcore.errors import ArtifactDamaged, ModelMissing, UsageError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
TEMPLATE_FILE = "swift_template.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PICKLED_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def require_model_folder(folder: Path) -> Path:
    """Return the folder when it holds a model in safetensors form.

    Raises:
        ModelMissing: nothing is there, or it is not a model folder.
        UsageError: its weights are pickles, which run code when they are loaded.
    """
    if not folder.is_dir():
        raise ModelMissing(
            "the model folder does not exist",
            where=folder,
            do="set model.model to a folder with config.json and *.safetensors, "
            "or build a model with model.scratch",
        )
    if not (folder / "config.json").is_file():
        raise ModelMissing(
            "the folder holds no model: config.json is missing",
            where=folder,
            found=_names(folder),
            expected="config.json, *.safetensors, tokenizer.json",
            do=_without_config_hint(folder),
        )
    if not any(folder.glob("*.safetensors")):
        _refuse_pickles(folder)
        raise ModelMissing(
            "the model folder has no weights",
            where=folder,
            found=_names(folder),
            expected="*.safetensors",
            do="complete the copy or the download of the model",
        )
    return folder


def require_adapter_folder(folder: Path) -> Path:
    """Return the folder when it holds an adapter in safetensors form.

    Raises:
        ModelMissing: the folder, its configuration or its weights are missing.
        UsageError: its weights are pickles.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ModelMissing(
            f"no adapter here: {ADAPTER_CONFIG} is missing",
            where=folder,
            do="name the folder that the train stage wrote with tuner.train_type lora",
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        _refuse_pickles(folder)
        raise ModelMissing(
            f"the adapter has no weights: {ADAPTER_WEIGHTS} is missing",
            where=folder,
            do="complete the copy, or train the adapter again",
        )
    return folder


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ArtifactDamaged: the file is not a JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as err:
        raise ArtifactDamaged(
            "the file is not JSON", where=file, found=err, do="restore it from its source"
        ) from err
    if not isinstance(value, dict):
        raise ArtifactDamaged(
            "the file does not hold a JSON object",
            where=file,
            found=type(value).__name__,
            do="restore it from its source",
        )
    return value


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Write an object as JSON with sorted keys, so that equal content gives equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def same_tokenizer(one: Path, other: Path) -> bool:
    """Return whether two folders hold the same tokenizer files, byte for byte."""
    if one == other:
        return True
    names = [{name for name in TOKENIZER_FILES if (at / name).is_file()} for at in (one, other)]
    return names[0] == names[1] and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in names[0]
    )


def copy_tokenizer_files(source: Path, target: Path) -> None:
    """Copy the tokenizer, its chat template and the template settings, byte for byte."""
    for name in (*TOKENIZER_FILES, TEMPLATE_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _without_config_hint(folder: Path) -> str:
    if (folder / ADAPTER_CONFIG).is_file():
        return "this is an adapter; load it onto its base model, or merge it first"
    return "set model.model to the folder that holds config.json"


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(path.name for pattern in _PICKLED_PATTERNS for path in folder.glob(pattern))
    if pickles:
        raise UsageError(
            "only safetensors weights are loaded; pickled weights can run code",
            where=folder,
            found=", ".join(pickles[:5]),
            expected="*.safetensors",
            do="convert the weights with a tool you trust, in a place where they can do no harm",
        )


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "") if names else "an empty folder"
