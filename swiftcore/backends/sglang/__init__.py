"""SGLang: serves models on NVIDIA GPUs."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="sglang",
    summary="serves models on GPUs (SGLang)",
    folder=Path(__file__).parent,
    package="sglang",
    imports=("sglang", "sglang.launch_server"),
    size_bytes=15_000_000_000,
    needs_gpu=True,
)
