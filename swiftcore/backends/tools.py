"""Which tool serves: the one that an `infer_backend` names, in the build that fits this machine."""

from typing import Literal

from swiftcore.backends.environment import open_environment
from swiftcore.backends.serving import ServingTool
from swiftcore.backends.spec import get_backend
from swiftcore.errors import UsageError
from swiftcore.recipe import Runtime
from swiftcore.recipe.sections.serve_backends import ServeBackend


def serving_tool(
    name: ServeBackend, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> ServingTool:
    """Return the tool for a device; vLLM has a build of its own for machines without a GPU.

    Args:
        name: as `infer_backend` names it.
        device: auto takes a GPU where there is one.

    Raises:
        UsageError: the tool does not compute on this device.
    """
    from swiftcore.backends.lmdeploy.server import lmdeploy_tool
    from swiftcore.backends.sglang.server import sglang_tool
    from swiftcore.backends.vllm.server import vllm_tool

    if name != "vllm":
        tool = sglang_tool() if name == "sglang" else lmdeploy_tool()
        if device == "cpu":
            raise UsageError(
                f"{tool.label} computes on NVIDIA GPUs only",
                where=f"infer_backend {name}",
                found="runtime.device: cpu",
                do="use infer_backend vllm or pt, or leave runtime.device out",
            )
        return tool
    gpu = get_backend("vllm")
    if device == "cpu" or (device == "auto" and gpu.why_not_here()):
        return vllm_tool(get_backend("vllm_cpu"), "cpu")
    return vllm_tool(gpu, "cuda")


def require_tool(name: ServeBackend, runtime: Runtime) -> None:
    """Refuse a tool that can't serve here, before anything that takes long is done for it.

    Raises:
        UsageError: the tool does not compute on the runtime's device.
        BackendMissing: it is not installed and is not to be, or can't be on this machine.
    """
    device = "auto" if runtime.device == "mps" else runtime.device
    environment = open_environment(serving_tool(name, device).backend, runtime)
    environment.require(install=runtime.install_backends)
