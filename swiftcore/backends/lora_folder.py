"""What the folder of a LoRA adapter says to a tool that is to serve it."""

import json
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError


def adapter_rank(folder: Path) -> int:
    """Return the highest rank in an adapter's folder.

    Raises:
        UsageError: it holds no LoRA adapter.
    """
    config = _config(folder)
    try:
        return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (KeyError, TypeError, ValueError) as error:
        raise _no_adapter(folder, error) from error


def adapter_targets(folder: Path) -> frozenset[str]:
    """Return the modules that an adapter changes, as it names them.

    Raises:
        UsageError: it holds no LoRA adapter.
    """
    named = _config(folder).get("target_modules") or []
    return frozenset([named] if isinstance(named, str) else named)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_adapter(folder, error) from error
    if not isinstance(config, dict):
        raise _no_adapter(folder, TypeError(f"a {type(config).__name__}"))
    return config


def _no_adapter(folder: Path, error: Exception) -> UsageError:
    return UsageError(
        "this folder holds no LoRA adapter",
        where=folder,
        found=f"{type(error).__name__}: {error}",
        expected="adapter_config.json with a rank r",
        do="name the folder that training wrote",
    )
