"""How a recipe asks for weights and optimizer states that are spread over processes."""

import json
from pathlib import Path
from typing import Any, Literal

FSDP_NAMES = ("fsdp2",)
FsdpName = Literal["fsdp2"]

DeepspeedName = Literal["zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"]

# Sections of a DeepSpeed file that say what a recipe says, and where it does.
_DEEPSPEED_ELSEWHERE = {
    "optimizer": "train.optimizer, train.learning_rate and train.adam_beta1",
    "scheduler": "train.lr_scheduler_type and train.warmup_ratio",
    "train_batch_size": "train.per_device_train_batch_size",
    "train_micro_batch_size_per_gpu": "train.per_device_train_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "gradient_clipping": "train.max_grad_norm",
    "bf16": "model.torch_dtype",
    "fp16": "model.torch_dtype",
}
_HPZ = "zero_hpz_partition_size"
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


def check_sharding(
    fsdp: FsdpName | dict[str, Any] | None,
    deepspeed: DeepspeedName | dict[str, Any] | None,
    hpz_partition_size: int | None = None,
) -> None:
    """Refuse settings that would do nothing, or something else than they say.

    Raises:
        ValueError: says which.
    """
    if fsdp is not None and deepspeed is not None:
        raise ValueError("train.fsdp and train.deepspeed both spread weights; give one")
    if fsdp is not None:
        reshard_after_forward(fsdp)
    if deepspeed is not None:
        deepspeed_config(deepspeed, hpz_partition_size)
    elif hpz_partition_size is not None:
        raise ValueError("train.zero_hpz_partition_size does nothing without train.deepspeed")


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


def deepspeed_config(
    deepspeed: DeepspeedName | dict[str, Any], hpz_partition_size: int | None = None
) -> dict[str, Any]:
    """Return the settings of a name, or of a recipe's own, with the sections that are read here.

    Args:
        deepspeed: what the recipe names.
        hpz_partition_size: processes that hold a second copy of the weights among them, from which
            the backward pass gathers (ZeRO++, arXiv:2306.10209); those of a machine, commonly.

    Raises:
        ValueError: a setting that would not be followed.
    """
    settings = _settings_of(deepspeed)
    if hpz_partition_size is None:
        return settings
    zero = settings["zero_optimization"]
    if zero["stage"] != 3:
        raise ValueError(
            "train.zero_hpz_partition_size is about weights that are spread, with ZeRO 3; "
            f"train.deepspeed is ZeRO {zero['stage']}"
        )
    if zero.get(_HPZ, hpz_partition_size) != hpz_partition_size:
        raise ValueError(f"train.deepspeed and train.{_HPZ} say different things; remove one")
    return {**settings, "zero_optimization": {**zero, _HPZ: hpz_partition_size}}


def _settings_of(deepspeed: DeepspeedName | dict[str, Any]) -> dict[str, Any]:
    if isinstance(deepspeed, str):
        name, _, offload = deepspeed.partition("_")
        zero: dict[str, Any] = {"stage": int(name.removeprefix("zero"))}
        if offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if offload and zero["stage"] == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
        return {"zero_optimization": zero}
    for name, instead in _DEEPSPEED_ELSEWHERE.items():
        value = deepspeed.get(name, "auto")
        if name in ("bf16", "fp16") and isinstance(value, dict):
            value = value.get("enabled") or "auto"
        if value != "auto":
            raise ValueError(f"train.deepspeed: {name} is written elsewhere: use {instead}")
    zero = deepspeed.get("zero_optimization", {"stage": 0})
    if not isinstance(zero, dict) or zero.get("stage") not in (0, 1, 2, 3):
        raise ValueError("train.deepspeed: zero_optimization.stage is 0, 1, 2 or 3")
    kept = {name: value for name, value in deepspeed.items() if name not in _DEEPSPEED_ELSEWHERE}
    # Sizes that follow from the model in transformers' integration have defaults in DeepSpeed.
    zero = {name: value for name, value in zero.items() if value != "auto"}
    return {**kept, "zero_optimization": zero}
