"""What is asked of a tool that serves a model, and how each tool is told: its command line.

The tools differ in flags, in where their key goes and in how adapters come and go; a `ServingTool`
says all that. `tool_server` starts one and looks after it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swiftcore.backends.spec import Backend
from swiftcore.errors import UsageError
from swiftcore.recipe.sections import Dtype
from swiftcore.recipe.sections.serve_backends import ServeBackend, ToolSettings

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class ServeOrder:
    """What to serve, and how.

    Args:
        backend: the tool, as `infer_backend` names it.
        model_dir: a folder that plain `from_pretrained` loads.
        adapters: folders of LoRA adapters by the names that requests use.
        settings: the tool's settings; those of other tools are not read.
        max_model_len: longest prompt plus answer; the tool's own setting goes first.
        dtype: type of the weights in memory; None: the model's own.
        device: cpu, cuda, or auto for a GPU where there is one.
        name: the model's name in requests.
        max_logprobs: most likeliest tokens of one place that a request may ask vLLM for; None: 20.
    """

    backend: ServeBackend
    model_dir: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)
    settings: ToolSettings = field(default_factory=ToolSettings)
    max_model_len: int | None = None
    dtype: Dtype | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    name: str = "model"
    max_logprobs: int | None = None


@dataclass(frozen=True)
class Place:
    """Where one server runs: its private address and what it may take.

    Args:
        port: on 127.0.0.1.
        threads: CPU threads.
        free_memory_bytes: main memory that nobody uses now.
    """

    port: int
    threads: int
    free_memory_bytes: int


@dataclass(frozen=True)
class Command:
    """How a tool's server is started: `python -m module arguments`, with variables.

    Args:
        module: run with the environment's interpreter.
        arguments: what follows.
        variables: environment variables beside those that every tool gets.
        key_variable: environment variable that the tool reads its key from.
        key_flag: flag that it takes its key by, where it reads no variable.
    """

    module: str
    arguments: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    key_variable: str | None = None
    key_flag: str | None = None


AdapterLimits = Callable[[Sequence[Path], int], str | None]
"""Of further adapters, and how many a server was given since its start: why it takes them not."""


@dataclass(frozen=True)
class AdapterRoutes:
    """How a running server takes and drops adapters.

    Args:
        load, unload: POST paths that read the same fields.
        limits: what a server says to further adapters that is started with an order.
    """

    load: str
    unload: str
    limits: Callable[[ServeOrder], AdapterLimits] = lambda order: lambda folders, num_held: None


@dataclass(frozen=True)
class ServingTool:
    """A tool that serves models over OpenAI's HTTP.

    Args:
        label: its name for people.
        backend: its environment.
        device: what it computes on there.
        command: makes the command line; raises UsageError for an order that the tool can't do.
        adapter_routes: None where adapters are only loaded at the start.
    """

    label: str
    backend: Backend
    device: Device
    command: Callable[[ServeOrder, Place], Command]
    adapter_routes: AdapterRoutes | None = None


def flags_of(settings: ToolSettings, prefix: str, leave_out: tuple[str, ...] = ()) -> list[str]:
    """Return the fields of one tool as flags of the same names; None and False are left out."""
    words: list[str] = []
    for name in ToolSettings.model_fields:
        short = name.removeprefix(prefix)
        value = getattr(settings, name)
        if name.startswith(prefix) and short not in leave_out and value is not False:
            words += flag(short, value)
    return words


def flag(name: str, value: Any) -> list[str]:
    """Return one option as words: a bare flag for True, `--no-` for False, nothing for None."""
    written = name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{written}" if value else f"--no-{written}"]
    if isinstance(value, dict):
        return [f"--{written}", json.dumps(value)]
    words = value if isinstance(value, list) else [value]
    return [f"--{written}", *map(str, words)]


def longest_sequence(order: ServeOrder, field_name: str) -> int | None:
    """Return the longest sequence to serve: the tool's own setting, else the order's.

    Raises:
        UsageError: they contradict each other.
    """
    own = getattr(order.settings, field_name)
    if own is not None and order.max_model_len not in (None, own):
        raise UsageError(
            "two settings say how long a sequence may be, and differ",
            where=field_name,
            found=f"{own}, and max_model_len {order.max_model_len}",
            expected="one of them, or equal numbers",
            do=f"leave {field_name} out",
        )
    return own or order.max_model_len


def named_folders(adapters: Mapping[str, Path]) -> list[str]:
    """Return adapters as the words `name=folder` that all tools take."""
    return [f"{name}={folder.absolute()}" for name, folder in adapters.items()]
