"""Every documented argument and every field of a recipe: type, default, and whether it works.

`arguments.csv` holds what ms-swift's reference documents: name, group, type, default and what the
argument is for, one row for each group that documents it. Whether an argument works is never
written down there: it works when a recipe section or `Runtime` has a field of its name, so a new
field works, and says where it acts, from the day it exists. The few that act in another way, and
the reasons of the others, are in this module.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel

WORKS = "works"
OWN_GROUP = "Recipe"
ENVIRONMENT_GROUP = "Environment"

# Names that ms-swift 4.x gave to arguments of 3.10.
ALIASES = {
    "tuner_type": "train_type",
    "num_workers": "dataloader_num_workers",
    "eval_metric": "metric",
    "num_sampling_batch_size": "num_sampling_per_gpu_batch_size",
    "num_sampling_batches": "num_sampling_per_gpu_batches",
    "mcore_adapter": "mcore_adapters",
    "swanlab_webhook_url": "swanlab_lark_webhook_url",
    "swanlab_secret": "swanlab_lark_secret",
}

# Arguments that have no field of their own: where they act instead.
_ACTS_OTHERWISE = {
    "merge_lora": ("merge",),
    "to_cached_dataset": ("swift export",),
    "to_ollama": ("swift export",),
    "output_dir": ("swift export", "swift sample"),
    "output_file": ("swift sample",),
    "override_exist_file": ("swift sample",),
    "push_to_hub": ("swift export",),
    "hub_model_id": ("swift export",),
    "hub_private_repo": ("swift export",),
    "commit_message": ("swift export",),
    "eval_url": ("swift eval",),
    "eval_output_dir": ("swift eval",),
    "eval_num_proc": ("swift eval",),
    "CUDA_VISIBLE_DEVICES": ("environment",),
    "NPROC_PER_NODE": ("environment",),
    "NNODES": ("environment",),
    "NODE_RANK": ("environment",),
    "MASTER_ADDR": ("environment",),
    "MASTER_PORT": ("environment",),
    "PYTORCH_CUDA_ALLOC_CONF": ("environment",),
}

_NOT_BUILT = "not built yet"
_MULTIMODAL = "rows with pictures, video or sound are not built yet"
_NO_MEGATRON = "training needs no Megatron, so models stay in Hugging Face's format"
_ONE_DEVICE = "a process trains on one device; NPROC_PER_NODE starts one for each of several"
_GROUP_REASONS = {
    "SWANLAB": "SwanLab is not supported; metrics go to MLflow",
    "RLHF": "preference tuning is not built yet",
    "Reward/Teacher Model": "preference tuning is not built yet",
    "PPO": "preference tuning is not built yet",
    "GRPO": "GRPO is not built yet",
    "Rollout": "GRPO is not built yet",
    "Web-UI": "the web page is not built yet",
    "App": "the web page is not built yet",
    "MCTS": "tree search is not built, and ms-swift 4 dropped it; swift sample ranks whole answers",
}
_REASONS = {
    "output_dir": "results live in the artifact store; name it with --store",
    "add_version": "results live in the artifact store; name it with --store",
    "exist_ok": "artifacts are never overwritten",
    "create_checkpoint_symlink": "the record names the best step, and load_best_model_at_end "
    "makes it the output",
    "use_logits_to_keep": "train.label_logits does it, and is on unless switched off",
    "average_tokens_across_devices": "a step's loss is always divided by the tokens of all "
    "processes",
    "extra_eval_args": "native evaluation has settings of its own: eval_dataset_args and others",
    "local_dataset": "benchmarks are read from local files, which runtime.eval_dataset_dir names",
    "eval_use_evalscope": "EvalScope asks a served model, so eval_dataset is answered by the "
    "evaluate stage, after training; predict_with_generate scores answers while training",
    "safe_serialization": "weights are always written as safetensors",
    "check_model": "artifacts are always verified before reuse",
    "load_from_cache_file": "unchanged stages are always reused",
    "load_args": "a model folder's own template settings are always used",
    "ignore_args_error": "nothing is accepted and ignored",
    "api_key": "recipes are kept and shown: set SWIFTCORE_API_KEY in the environment instead",
    "to_mcore": _NO_MEGATRON,
    "to_hf": _NO_MEGATRON,
    "mcore_model": _NO_MEGATRON,
    "mcore_adapters": _NO_MEGATRON,
    "thread_count": _NO_MEGATRON,
    "test_convert_precision": _NO_MEGATRON,
    "use_hf": "a dataset names its hub, hf:: or ms::, and models are local folders",
    "hub_token": "recipes are kept and shown: set HF_TOKEN or MODELSCOPE_API_TOKEN instead",
    "model_kwargs": _MULTIMODAL,
    "model_type": "config.json says what a model is; template.template chooses another template",
    "model_revision": "models are local folders, known by their weights' digest; download it there",
    "device_map": _ONE_DEVICE,
    "max_memory": _ONE_DEVICE,
    "local_repo_path": "code from outside transformers is never run",
    "init_strategy": "a checkpoint that lacks weights is refused, not filled with random numbers",
    "save_on_each_node": "each machine has a store of its own, and keeps checkpoints there",
    "lazy_tokenize": "rows are encoded once, in the template stage, and reused from then on",
    "deepspeed_autotp_size": "tensor parallelism is not built; train.deepspeed: zero3 saves more",
    "use_flash_ckpt": "DLRover is not needed: async_save copies a checkpoint to memory, and "
    "writes it while training goes on",
    "use_liger_kernel": "its kernels need a GPU; train.label_logits spares whole logits anywhere",
    "max_pixels": _MULTIMODAL,
    "norm_bbox": _MULTIMODAL,
    "vit_gradient_checkpointing": "gradient_checkpointing covers every part of a model",
    "galore_optim_per_parameter": "one optimizer steps all parameters, with the same result",
    "LOG_LEVEL": "use --log_level",
    "SWIFT_DEBUG": "use --debug",
    "padding_side": "training pads on the right and generation on the left, as each has to; no "
    "token looks at padding",
    "template_backend": "template: jinja is the model's own chat template, in training as well",
    "download_mode": "a source that changed is read again, and one that did not is reused",
    "vllm_use_async_engine": "vLLM runs as a server, whose engine is always asynchronous",
    "vllm_reasoning_parser": "vLLM is asked for tokens, not for chats; an answer holds its "
    "reasoning as the model wrote it",
    "ASCEND_RT_VISIBLE_DEVICES": "NPUs are not used",
    "MODELSCOPE_CACHE": "SWIFTCORE_CACHE names the folder of downloads",
    "SWIFT_TIMEOUT": _MULTIMODAL,
    "ROOT_IMAGE_DIR": _MULTIMODAL,
    "vllm_disable_cascade_attn": "it has no effect in vLLM any more",
    "VLLM_USE_V1": "vLLM has one engine now",
    "sglang_enable_ep_moe": "it is gone from SGLang; sglang_ep_size spreads the experts",
    "hqq_axis": "HQQ needs a GPU and has no checkpoint format; quant_method bnb does the same",
}
# Groups of settings for one family of models are headed by names of families.
_MODEL_GROUP = re.compile(r"[a-z0-9_, ]+")


@dataclass(frozen=True)
class Argument:
    """One argument as `swift args` shows it.

    Args:
        name: as it is written after `--`; `scratch.hidden_size` is a field inside a field.
        group: heading in ms-swift's reference, or "Recipe" for our own.
        type: bool, int, float, str, json, or list[...] of one of them.
        default: as documented; None when it is unset or not documented. Our own: as it is.
        status: "works", or "refused: " and the reason.
        acts_in: recipe fields that it sets; empty when it is refused.
        description: what it is for.
        aliases: other accepted names.
        default_here: default of the first field in acts_in, which may differ from the documented.
        elsewhere: other groups that document it, with the default there.
    """

    name: str
    group: str
    type: str
    default: Any
    status: str
    acts_in: tuple[str, ...]
    description: str
    aliases: tuple[str, ...] = ()
    default_here: Any = None
    elsewhere: dict[str, Any] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Tell whether the argument does something."""
        return self.status == WORKS


@dataclass(frozen=True)
class RecipeField:
    """A field of a section or of `Runtime`: where it is, how a flag's words become its value."""

    path: str
    type: str
    default: Any
    description: str


@cache
def list_arguments() -> list[Argument]:
    """Return all arguments: the documented ones in their order, then those only a recipe has."""
    fields: dict[str, list[RecipeField]] = {}
    for flag, found in recipe_fields():
        fields.setdefault(flag, []).append(found)
    documented: dict[str, list[dict[str, str]]] = {}
    text = (files("swiftcore.recipe") / "arguments.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        documented.setdefault(row["name"], []).append(row)
    arguments = [_documented(rows, fields.pop(name, [])) for name, rows in documented.items()]
    return arguments + [_own(name, found) for name, found in fields.items()]


def find_argument(name: str) -> Argument | None:
    """Return the argument of a name or alias, None when there is none; dashes are underscores."""
    name = name.replace("-", "_")
    return _by_name().get(ALIASES.get(name, name))


@cache
def _by_name() -> dict[str, Argument]:
    return {argument.name: argument for argument in list_arguments()}


@cache
def recipe_fields() -> tuple[tuple[str, RecipeField], ...]:
    """Return every field of recipe, commands and `Runtime` with its flag name, in section order."""
    from swiftcore.recipe.runtime import Runtime
    from swiftcore.recipe.sections import COMMAND_SECTIONS, Recipe

    found: list[tuple[str, RecipeField]] = []
    for name, info in Recipe.model_fields.items():
        inner = model_inside(info.annotation)
        if inner is None:
            found.append((name, _field(name, info)))
        else:
            found += _fields_of(inner, name)
    for name, section in COMMAND_SECTIONS.items():
        found += _fields_of(section, name)
    return (*found, *_fields_of(Runtime, "runtime"))


def model_inside(annotation: Any) -> "type[BaseModel] | None":
    """Return the pydantic model that an annotation is or may be."""
    from pydantic import BaseModel

    for part in get_args(annotation) or (annotation,):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _fields_of(
    model: "type[BaseModel]", path: str, prefix: str = ""
) -> Iterator[tuple[str, RecipeField]]:
    for name, info in model.model_fields.items():
        inner = model_inside(info.annotation)
        if inner is None:
            yield prefix + name, _field(f"{path}.{name}", info)
        else:
            yield from _fields_of(inner, f"{path}.{name}", f"{prefix}{name}.")


def _field(path: str, info: Any) -> RecipeField:
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    return RecipeField(path, _type_name(info.annotation), _plain(default), info.description or "")


def _plain(value: Any) -> Any:
    """Return a default as JSON can hold it."""
    return value if isinstance(value, bool | int | float | str | list | dict | None) else str(value)


def _type_name(annotation: Any) -> str:
    parts = [part for part in get_args(annotation) if part is not type(None)]
    origin = get_origin(annotation)
    if origin is Literal:
        return type(parts[0]).__name__
    if origin is list:
        inner = _type_name(parts[0])
        return f"list[{inner}]"
    if origin is dict or annotation is dict:
        return "json"
    if origin is not None:
        return _type_name(parts[0])
    return annotation.__name__ if annotation in (bool, int, float) else "str"


def _documented(rows: list[dict[str, str]], fields: list[RecipeField]) -> Argument:
    first, name = rows[0], rows[0]["name"]
    acts_in = tuple(found.path for found in fields) or _ACTS_OTHERWISE.get(name, ())
    return Argument(
        name=name,
        group=first["group"],
        type=fields[0].type if fields else first["type"],
        default=_value(first["default"], first["type"]),
        status=WORKS if acts_in else f"refused: {_reason(name, first['group'])}",
        acts_in=acts_in,
        description=first["description"],
        aliases=tuple(alias for alias, meant in ALIASES.items() if meant == name),
        default_here=fields[0].default if fields else None,
        elsewhere={row["group"]: _value(row["default"], row["type"]) for row in rows[1:]},
    )


def _own(name: str, fields: list[RecipeField]) -> Argument:
    first = fields[0]
    return Argument(
        name=name,
        group=OWN_GROUP,
        type=first.type,
        default=first.default,
        status=WORKS,
        acts_in=tuple(found.path for found in fields),
        description=first.description,
        default_here=first.default,
    )


def reason_elsewhere(name: str) -> str | None:
    """Return why an argument that acts in some command does not act in the others."""
    return _REASONS.get(name)


def _reason(name: str, group: str) -> str:
    if name in _REASONS:
        return _REASONS[name]
    if group == ENVIRONMENT_GROUP:
        return "this environment variable is not read"
    if _MODEL_GROUP.fullmatch(group):
        return _MULTIMODAL
    return _GROUP_REASONS.get(group, _NOT_BUILT)


def _value(written: str, kind: str) -> Any:
    """Read a documented default; text that is no literal of the type stays as it is written."""
    if written in ("", "None"):
        return None
    if kind == "bool":
        return written == "True"
    if kind == "str":
        return written
    try:
        return json.loads(written.replace("'", '"'))
    except ValueError:
        return [written] if kind.startswith("list") else written
