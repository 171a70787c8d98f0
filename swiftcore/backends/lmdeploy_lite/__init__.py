"""LMDeploy's quantization alone, which needs no GPU; its engines are the backend `lmdeploy`."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="lmdeploy_lite",
    summary="quantizes to the awq format with lmdeploy lite",
    folder=Path(__file__).parent,
    package="lmdeploy",
    imports=("lmdeploy.lite.apis.auto_awq",),
    size_bytes=1_500_000_000,
)
