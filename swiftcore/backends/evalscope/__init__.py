"""EvalScope: benchmarks against an OpenAI-compatible endpoint."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="evalscope",
    summary="benchmarks against a served model",
    folder=Path(__file__).parent,
    package="evalscope",
    imports=("evalscope",),
    size_bytes=900_000_000,
)
