"""lm-eval, EleutherAI's harness: generation tasks against an OpenAI-compatible endpoint."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="lm-eval",
    summary="EleutherAI's harness against a served model",
    folder=Path(__file__).parent,
    package="lm-eval",
    imports=("lm_eval",),
    size_bytes=600_000_000,
)
