"""The command line of LMDeploy's server."""

from swiftcore.backends.lmdeploy import BACKEND
from swiftcore.backends.serving import (
    Command,
    Place,
    ServeOrder,
    ServingTool,
    flag,
    flags_of,
    longest_sequence,
    named_folders,
)
from swiftcore.errors import UsageError

_OTHERWISE = ("session_len", "vision_batch_size")


def lmdeploy_tool() -> ServingTool:
    """Return LMDeploy as a tool that serves."""
    return ServingTool("LMDeploy", BACKEND, "cuda", serve_command)


def serve_command(order: ServeOrder, place: Place) -> Command:
    """Return how LMDeploy is started.

    Raises:
        UsageError: LMDeploy does not compute in this type, or settings contradict.
    """
    if order.dtype == "float32":
        raise UsageError(
            "LMDeploy does not compute in float32",
            where="infer_backend lmdeploy",
            found="dtype float32",
            expected="float16 or bfloat16",
            do="choose one of them, or infer_backend vllm",
        )
    settings = order.settings
    arguments = [
        *("serve", "api_server", str(order.model_dir.absolute()), "--model-name", order.name),
        *("--server-name", "127.0.0.1", "--server-port", str(place.port)),
        # Sampling is as each request says; the model's own defaults would fill in what it omits.
        *("--generation-config", "lmdeploy"),
        *flag("dtype", order.dtype),
        *flag("session_len", longest_sequence(order, "lmdeploy_session_len")),
        *flag("vision_max_batch_size", settings.lmdeploy_vision_batch_size),
        *flags_of(settings, "lmdeploy_", _OTHERWISE),
    ]
    if order.adapters:
        # Of its two engines only this one takes adapters.
        arguments += ["--backend", "pytorch", "--adapters", *named_folders(order.adapters)]
    variables = {"UVICORN_LOG_LEVEL": "warning"}
    return Command("lmdeploy", arguments, variables, key_flag="--api-keys")
