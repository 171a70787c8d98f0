"""LMDeploy: serves models on NVIDIA GPUs."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="lmdeploy",
    summary="serves models on GPUs (LMDeploy)",
    folder=Path(__file__).parent,
    package="lmdeploy",
    imports=("lmdeploy", "lmdeploy.cli.entrypoint"),
    size_bytes=10_000_000_000,
    needs_gpu=True,
)
