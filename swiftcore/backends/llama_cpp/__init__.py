"""llama.cpp, through llama-cpp-python: quantizes GGUF files and runs them."""

from pathlib import Path

from swiftcore.backends.spec import Backend

BACKEND = Backend(
    name="llama_cpp",
    summary="quantizes GGUF files (built here by a C++ compiler)",
    folder=Path(__file__).parent,
    package="llama-cpp-python",
    imports=("llama_cpp",),
    size_bytes=400_000_000,
    # Its reader of pictures is a quarter of the compilation, and nothing here has pictures.
    build_variables={"CMAKE_ARGS": "-DLLAVA_BUILD=OFF"},
)
