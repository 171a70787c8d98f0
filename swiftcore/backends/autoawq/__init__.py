"""AutoAWQ: the awq format as its first tool wrote it; gptqmodel has followed it."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="autoawq",
    summary="quantizes to the awq format; its last release, succeeded by gptqmodel",
    folder=Path(__file__).parent,
    package="autoawq",
    imports=("awq",),
    size_bytes=1_300_000_000,
)
