"""How a recipe asks for weights and optimizer states that are spread over processes."""

import json
from pathlib import Path
from typing import Any, Literal

FSDP_NAMES = ("fsdp2",)
FsdpName = Literal["fsdp2"]

# What the JSON of accelerate and ms-swift may say, where one value alone is meant here.
_FSDP_FIXED: dict[str, tuple[Any, ...]] = {
    "fsdp": ("full_shard auto_wrap", "full_shard", ["full_shard", "auto_wrap"], True),
    "fsdp_version": (2,),
    "version": (2,),
    "auto_wrap_policy": ("TRANSFORMER_BASED_WRAP",),
    "state_dict_type": ("FULL_STATE_DICT",),
    "cpu_ram_efficient_loading": (False,),
    "activation_checkpointing": (False,),
}


def read_settings(value: Any) -> Any:
    """Return the content of a JSON file that a recipe names, and anything else as it is.

    Identity is what: the same file elsewhere is the same recipe, and a changed one another.
    """
    if not isinstance(value, str) or not value.endswith(".json"):
        return value
    try:
        return json.loads(Path(value).read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise ValueError(f"there is no file {value}") from err
    except (OSError, ValueError) as err:
        raise ValueError(f"{value} is no JSON: {err}") from err


def reshard_after_forward(fsdp: FsdpName | dict[str, Any]) -> bool:
    """Return whether a block gives its weights back between forward and backward pass.

    Raises:
        ValueError: a setting that has another meaning, or none, here.
    """
    if isinstance(fsdp, str):
        return True
    settings = {**fsdp, **fsdp.get("fsdp_config", {})}
    settings.pop("fsdp_config", None)
    reshard = settings.pop("reshard_after_forward", True)
    if not isinstance(reshard, bool):
        raise ValueError(f"train.fsdp: reshard_after_forward is true or false, not {reshard!r}")
    for name, value in settings.items():
        if name not in _FSDP_FIXED:
            known = ", ".join(["reshard_after_forward", *_FSDP_FIXED])
            raise ValueError(f"train.fsdp: {name} does nothing here; it may hold {known}")
        if value not in _FSDP_FIXED[name]:
            raise ValueError(
                f"train.fsdp: {name} is {value!r}, and only {_FSDP_FIXED[name][0]!r} works"
                + ("; use train.gradient_checkpointing" if name.startswith("activation") else "")
            )
    return reshard
