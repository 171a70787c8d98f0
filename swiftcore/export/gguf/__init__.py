"""One file that llama.cpp and Ollama read: metadata, tokenizer and weights of a model as GGUF.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md for the format and its keys.
"""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

if TYPE_CHECKING:
    from swiftcore.export.gguf.convert import GgufReport, export_gguf

__all__ = ["GgufReport", "export_gguf"]

__getattr__ = late_names(__name__, {"convert": ("GgufReport", "export_gguf")})
