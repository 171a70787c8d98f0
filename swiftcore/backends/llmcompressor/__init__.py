"""llm-compressor: GPTQ, AWQ, FP8 and W8A8 checkpoints in the compressed-tensors format."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="llmcompressor",
    summary="quantizes to compressed-tensors",
    folder=Path(__file__).parent,
    package="llmcompressor",
    imports=("llmcompressor", "llmcompressor.modifiers.quantization"),
    size_bytes=1_300_000_000,
)
