"""The command line of vLLM's server, for the GPU build and the one for CPUs."""

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
)
from swiftcore.backends.spec import Backend
from swiftcore.backends.vllm.adapters import adapter_flags, adapter_limits, changes_adapters
from swiftcore.backends.vllm.cpu import cache_gib, require_head_size

_GPU_SHARE = 0.9
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
    routes = AdapterRoutes("/v1/load_lora_adapter", "/v1/unload_lora_adapter", adapter_limits)

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
        *flag("max_logprobs", order.max_logprobs),
        *adapter_flags(order),
        *_further(settings.vllm_engine_kwargs or {}),
    ]
    variables = {"VLLM_NO_USAGE_STATS": "1"}
    if changes_adapters(order):
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if on_cpu:
        variables |= _cpu_variables(order, place, longest)
    return Command("vllm.entrypoints.cli.main", arguments, variables, key_variable="VLLM_API_KEY")


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
