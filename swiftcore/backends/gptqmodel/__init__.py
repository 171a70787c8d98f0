"""GPTQModel: checkpoints in the gptq and awq formats; the successor of auto-gptq and autoawq."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="gptqmodel",
    summary="quantizes to the gptq and awq formats",
    folder=Path(__file__).parent,
    package="gptqmodel",
    imports=("gptqmodel",),
    size_bytes=1_500_000_000,
)
