"""vLLM's LoRA adapters: its command line decides which ones it takes while it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swiftcore.backends.lora_folder import adapter_rank
from swiftcore.backends.serving import AdapterLimits, ServeOrder, named_folders
from swiftcore.errors import UsageError

# The choices of --max-lora-rank in vLLM 0.32 and 0.33.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_LEAST_RANK = 16
# Adapters that a server keeps in main memory. Beyond that vLLM forgets the one that was asked for
# longest ago, an unloaded one or not, and reads its files again, whatever they are by then.
_ROOM = 32


def takes_adapters(order: ServeOrder) -> bool:
    """Tell whether vLLM is started for adapters."""
    settings = order.settings
    return bool(order.adapters or settings.vllm_enable_lora or settings.vllm_max_lora_rank)


def changes_adapters(order: ServeOrder) -> bool:
    """Tell whether it takes them while it runs: several API servers would not know of each other's.

    vLLM itself refuses to start so.
    """
    return takes_adapters(order) and int(_option(order, "api_server_count") or 1) == 1


def adapter_flags(order: ServeOrder) -> list[str]:
    """Return the words about adapters.

    Raises:
        UsageError: an adapter has a higher rank than vLLM may take.
    """
    if not takes_adapters(order):
        return []
    words = ["--enable-lora", "--max-lora-rank", str(_most(order))]
    if order.adapters:
        words += ["--max-loras", str(len(order.adapters))]
    if _option(order, "max_cpu_loras") is None:
        words += ["--max-cpu-loras", str(_room(order))]
    # Otherwise each copy of the model has an API server of its own.
    if order.settings.vllm_data_parallel_size > 1 and _option(order, "api_server_count") is None:
        words += ["--api-server-count", "1"]
    if order.adapters:
        words += ["--lora-modules", *named_folders(order.adapters)]
    return words


def adapter_limits(order: ServeOrder) -> AdapterLimits:
    """Return what a server that is started so says to further adapters.

    Raises:
        UsageError: as `adapter_flags`.
    """
    if not takes_adapters(order):
        return lambda folders, num_held: "it was started without adapters"
    if not changes_adapters(order):
        return lambda folders, num_held: "it has several API servers"
    most, room = _most(order), _room(order)

    def why_not(folders: Sequence[Path], num_held: int) -> str | None:
        for folder in folders:
            rank = adapter_rank(folder)
            if rank > most:
                return f"it was started for ranks up to {most}, and {folder.name} has rank {rank}"
        if num_held + len(folders) > room:
            return f"it has room for {room} adapters, and was given {num_held} since its start"
        return None

    return why_not


def _most(order: ServeOrder) -> int:
    """Return the highest rank that vLLM is started for."""
    asked = order.settings.vllm_max_lora_rank
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
    return most


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


def _room(order: ServeOrder) -> int:
    """Return how many adapters a server keeps; vLLM wants no fewer than it computes at once."""
    asked = _option(order, "max_cpu_loras")
    if asked is not None:
        return int(asked)
    return max(_ROOM, len(order.adapters), int(_option(order, "max_loras") or 0))


def _option(order: ServeOrder, name: str) -> Any:
    """Return a further option that the user gave vLLM, in either spelling."""
    given: Mapping[str, Any] = order.settings.vllm_engine_kwargs or {}
    return next((given[word] for word in (name, name.replace("_", "-")) if word in given), None)
