"""vLLM: serves models on NVIDIA GPUs; vllm_cpu is its build for CPUs."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="vllm",
    summary="serves models on GPUs (vLLM)",
    folder=Path(__file__).parent,
    package="vllm",
    imports=("vllm", "vllm.entrypoints.cli.main"),
    size_bytes=12_000_000_000,
    needs_gpu=True,
)
