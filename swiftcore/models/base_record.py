"""Which weights an adapter was trained over: a record in its folder, and the check against it."""

from pathlib import Path
from typing import Any

from swiftcore.artifacts.digests import sha256_file
from swiftcore.errors import UsageError
from swiftcore.models.files import read_json

BASE_RECORD = "base_model.json"


def base_record(model_dir: Path) -> dict[str, Any]:
    """Return the name of a base model and the digests of its weight files."""
    weights = {file.name: sha256_file(file) for file in sorted(model_dir.glob("*.safetensors"))}
    return {"name": model_dir.resolve().name, "weights": weights}


def refuse_other_base(base_dir: Path, adapter_dir: Path) -> None:
    """Compare the base's weights with those the adapter recorded, if it recorded any.

    Raises:
        UsageError: they are not the same.
    """
    record = adapter_dir / BASE_RECORD
    if not record.is_file():
        return
    base, found = read_json(record), base_record(base_dir)["weights"]
    if found != base["weights"]:
        raise UsageError(
            "this is not the base model that the adapter was trained on",
            where=adapter_dir,
            found=f"{base_dir.name}: {_short(found)}",
            expected=f"{base['name']}: {_short(base['weights'])}",
            do="name that base model, or train the adapter again on this one",
        )


def _short(digests: dict[str, str]) -> str:
    return ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(digests.items())[:3])
