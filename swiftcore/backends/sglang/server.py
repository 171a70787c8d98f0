"""The command line of SGLang's server."""

from collections.abc import Sequence
from pathlib import Path

from swiftcore.backends.lora_folder import adapter_rank, adapter_targets
from swiftcore.backends.serving import (
    AdapterLimits,
    AdapterRoutes,
    Command,
    Place,
    ServeOrder,
    ServingTool,
    flag,
    flags_of,
    longest_sequence,
    named_folders,
)
from swiftcore.backends.sglang import BACKEND

_OTHERWISE = ("context_length", "dp_size", "enable_dp_attention", "disable_cuda_graph")


def sglang_tool() -> ServingTool:
    """Return SGLang as a tool that serves."""
    routes = AdapterRoutes("/load_lora_adapter", "/unload_lora_adapter", adapter_limits)
    return ServingTool("SGLang", BACKEND, "cuda", serve_command, routes)


def serve_command(order: ServeOrder, place: Place) -> Command:
    """Return how SGLang is started.

    Raises:
        UsageError: settings contradict.
    """
    settings = order.settings
    # SGLang 0.5.23 calls the copies of the attention by another name, and drops the old one soon.
    copies = "attn_dp_size" if settings.sglang_enable_dp_attention else "dp_size"
    graphs = "disabled" if settings.sglang_disable_cuda_graph else None
    arguments = [
        *("--model-path", str(order.model_dir.absolute()), "--served-model-name", order.name),
        *("--host", "127.0.0.1", "--port", str(place.port)),
        # Sampling is as each request says; the model's own defaults would fill in what it omits.
        *("--sampling-defaults", "openai", "--log-level-http", "warning"),
        *flag("dtype", order.dtype),
        *flag("context_length", longest_sequence(order, "sglang_context_length")),
        *flag(copies, settings.sglang_dp_size),
        *flag("cuda_graph_backend_decode", graphs),
        *flag("cuda_graph_backend_prefill", graphs),
        *flags_of(settings, "sglang_", _OTHERWISE),
    ]
    if order.adapters:
        arguments += ["--enable-lora", "--lora-paths", *named_folders(order.adapters)]
    # Otherwise it tells log-probabilities of what temperature made of the model's own.
    variables = {"SGLANG_RETURN_ORIGINAL_LOGPROB": "1"}
    return Command("sglang.launch_server", arguments, variables, key_flag="--api-key")


def adapter_limits(order: ServeOrder) -> AdapterLimits:
    """Return what a server that is started so says to further adapters.

    SGLang makes room for the ranks and the modules of those that it is started with.

    Raises:
        UsageError: a folder holds no LoRA adapter.
    """
    first = order.adapters.values()
    if not first:
        return lambda folders, num_held: "it was started without adapters"
    most = max(map(adapter_rank, first))
    targets = frozenset[str]().union(*map(adapter_targets, first))

    def why_not(folders: Sequence[Path], num_held: int) -> str | None:
        for folder in folders:
            if adapter_rank(folder) > most or not adapter_targets(folder) <= targets:
                modules = ", ".join(sorted(targets))
                return f"it was started for ranks up to {most} of {modules}, unlike {folder.name}"
        return None

    return why_not
