"""OpenCompass: benchmarks against an OpenAI-compatible endpoint."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="opencompass",
    summary="OpenCompass's benchmarks against a served model",
    folder=Path(__file__).parent,
    package="opencompass",
    imports=("opencompass",),
    size_bytes=1_500_000_000,
)
