"""The command line of vLLM's server, for the GPU build and the one for CPUs."""

import json
from pathlib import Path
from typing import Any

from swiftcore.backends.serving import (
    AdapterRoutes,
    Command,
    Device,
    Place,
    ServeOrder,
    ServingTool,
    flag,
    flags_of,
    longest_sequence,
    named_folders,
)
from swiftcore.backends.spec import Backend
from swiftcore.backends.vllm.cpu import cache_gib, require_head_size
from swiftcore.errors import UsageError

_GPU_SHARE = 0.9
# The choices of --max-lora-rank in vLLM 0.32 and 0.33.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_LEAST_RANK = 16
_OTHERWISE = (
    "gpu_memory_utilization",
    "enforce_eager",
    "max_model_len",
    "enable_lora",
    "max_lora_rank",
    "enable_prefix_caching",
    "engine_kwargs",
)


def vllm_tool(backend: Backend, device: Device) -> ServingTool:
    """Return vLLM as it is built for a device."""
    routes = AdapterRoutes("/v1/load_lora_adapter", "/v1/unload_lora_adapter")

    def command(order: ServeOrder, place: Place) -> Command:
        return serve_command(order, place, device)

    return ServingTool("vLLM", backend, device, command, routes)


def serve_command(order: ServeOrder, place: Place, device: Device) -> Command:
    """Return how vLLM is started.

    Raises:
        UsageError: an adapter has a higher rank than vLLM may take, or settings contradict.
    """
    settings = order.settings
    on_cpu = device == "cpu"
    longest = longest_sequence(order, "vllm_max_model_len")
    share = settings.vllm_gpu_memory_utilization
    eager = settings.vllm_enforce_eager
    arguments = [
        *("serve", str(order.model_dir.absolute()), "--served-model-name", order.name),
        *("--host", "127.0.0.1", "--port", str(place.port)),
        # Sampling is as each request says; the model's own defaults would fill in what it omits.
        *("--generation-config", "vllm", "--disable-uvicorn-access-log"),
        *flag("dtype", order.dtype),
        *flag("max_model_len", longest),
        *flag("gpu_memory_utilization", share if on_cpu else share or _GPU_SHARE),
        *flag("enforce_eager", (on_cpu if eager is None else eager) or None),
        *flag("enable_prefix_caching", settings.vllm_enable_prefix_caching),
        *flags_of(settings, "vllm_", _OTHERWISE),
        *_adapter_flags(order),
        *_further(settings.vllm_engine_kwargs or {}),
    ]
    variables = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    if on_cpu:
        variables |= _cpu_variables(order, place, longest)
    return Command("vllm.entrypoints.cli.main", arguments, variables, key_variable="VLLM_API_KEY")


def adapter_rank(folder: Path) -> int:
    """Return the highest rank in an adapter's folder.

    Raises:
        UsageError: it holds no LoRA adapter.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "this folder holds no LoRA adapter",
            where=folder,
            found=f"{type(error).__name__}: {error}",
            expected="adapter_config.json with a rank r",
            do="name the folder that training wrote",
        ) from error


def _adapter_flags(order: ServeOrder) -> list[str]:
    settings = order.settings
    asked = settings.vllm_max_lora_rank
    if not (order.adapters or settings.vllm_enable_lora or asked):
        return []
    ranks = {name: adapter_rank(folder) for name, folder in order.adapters.items()}
    most = _rounded(asked or max([_LEAST_RANK, *ranks.values()]))
    for name, rank in ranks.items():
        if rank > most:
            raise UsageError(
                f"the adapter {name} has a higher rank than vLLM was told to take",
                where="vllm_max_lora_rank",
                found=f"rank {rank}",
                expected=f"at most {most}",
                do=f"set vllm_max_lora_rank: {_rounded(rank)}, or leave it out",
            )
    words = ["--enable-lora", "--max-lora-rank", str(most)]
    if order.adapters:
        words += ["--max-loras", str(len(order.adapters))]
        words += ["--lora-modules", *named_folders(order.adapters)]
    return words


def _rounded(rank: int) -> int:
    """Return the least rank of vLLM's choices that is enough."""
    enough = [choice for choice in _RANKS if choice >= rank]
    if not enough:
        raise UsageError(
            "vLLM takes no adapter of this rank",
            where="vllm_max_lora_rank",
            found=rank,
            expected=f"at most {_RANKS[-1]}",
            do="merge the adapter, and serve the merged model",
        )
    return enough[0]


def _cpu_variables(order: ServeOrder, place: Place, longest: int | None) -> dict[str, str]:
    require_head_size(order.model_dir)
    # Its own choice binds one thread to each core, however many the recipe allows.
    variables = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    if order.settings.vllm_gpu_memory_utilization is None:
        sequences = order.settings.vllm_max_num_seqs
        gib = cache_gib(order.model_dir, longest, sequences, place.free_memory_bytes)
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(gib)
    return variables


def _further(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in flag(name, value)]
