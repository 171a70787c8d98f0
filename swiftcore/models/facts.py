"""Facts about a model folder, read from its configuration and the headers of its weights."""

import json
import math
import struct
from pathlib import Path
from typing import Any

from swiftcore.errors import ArtifactDamaged
from swiftcore.models.files import read_json, require_model_folder

# The header length is the first eight bytes of a safetensors file, little endian; the format itself
# limits a header to 100 MB. Source: https://github.com/huggingface/safetensors#format
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# What quantizing tools store beside each weight; none of it is a parameter of the model.
_QUANTIZATION_STATE = (
    # bitsandbytes
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    ".SCB",
    ".weight_format",
    # torchao
    "._weight_scale",
    "._weight_zero_point",
    # compressed-tensors
    ".weight_scale",
    ".weight_zero_point",
    ".weight_shape",
    ".weight_g_idx",
    # gptq and awq
    ".scales",
    ".qzeros",
    ".g_idx",
)
# Names of weights that lie side by side in 32-bit integers.
_PACKED_IN_INT32 = (".weight_packed", ".qweight")
_INT32_BITS = 32


def model_facts(folder: Path) -> dict[str, Any]:
    """Return what can be known about a model without loading its weights.

    Keys: `model_type`, `architecture`, `parameters` (count), `dtype` (of most weights),
    `max_position_embeddings` (tokens, or None), `vocab_size`, `hidden_size`, `num_layers`,
    `tied_embeddings`, `quantization` (method or None), `size_bytes` (of the weight files).

    Raises:
        ModelMissing: there is no model in the folder.
        ArtifactDamaged: the configuration or a weight file can't be read.
    """
    require_model_folder(folder)
    config = read_json(folder / "config.json")
    text = config.get("text_config") or config
    files = sorted(folder.glob("*.safetensors"))
    headers = [safetensors_header(file) for file in files]
    quantization = config.get("quantization_config") or {}
    return {
        "model_type": config.get("model_type"),
        "architecture": (config.get("architectures") or [None])[0],
        "parameters": sum(_parameters(header, _packed_bits(quantization)) for header in headers),
        "dtype": _main_dtype(headers),
        "max_position_embeddings": text.get("max_position_embeddings"),
        "vocab_size": text.get("vocab_size"),
        "hidden_size": text.get("hidden_size"),
        "num_layers": text.get("num_hidden_layers"),
        "tied_embeddings": bool(text.get("tie_word_embeddings", False)),
        "quantization": quantization.get("quant_method"),
        "size_bytes": sum(file.stat().st_size for file in files),
    }


def safetensors_header(file: Path) -> dict[str, dict[str, Any]]:
    """Return {tensor name: {dtype, shape, data_offsets}} of one weight file.

    Raises:
        ArtifactDamaged: the file is shorter than its header says, or no safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(_LENGTH_BYTES)
        length = struct.unpack("<Q", start)[0] if len(start) == _LENGTH_BYTES else 0
        if not 0 < length <= min(_MAX_HEADER_BYTES, size):
            raise _damaged(file, f"{size} bytes with a header of {length}")
        try:
            header = json.loads(stream.read(length))
        except ValueError as err:
            raise _damaged(file, "a header that is not JSON") from err
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != _LENGTH_BYTES + length + end:
        raise _damaged(file, f"{size} bytes", f"{_LENGTH_BYTES + length + end} bytes")
    return header


def _packed_bits(quantization: dict[str, Any]) -> int:
    """Return the bits a weight takes where several share an integer."""
    groups = quantization.get("config_groups") or {}
    weights = next((group.get("weights") for group in groups.values()), None) or {}
    return quantization.get("bits") or weights.get("num_bits") or 4


def _parameters(header: dict[str, dict[str, Any]], packed_bits: int) -> int:
    total = 0
    for name, entry in header.items():
        if name.endswith(_QUANTIZATION_STATE) or ".quant_state." in name:
            continue
        packed_4bit = entry["dtype"] == "U8" and f"{name}.absmax" in header
        each = 2 if packed_4bit else 1
        if name.endswith(_PACKED_IN_INT32):
            each = _INT32_BITS // packed_bits
        total += math.prod(entry["shape"]) * each
    return total


def _main_dtype(headers: list[dict[str, dict[str, Any]]]) -> str | None:
    sizes: dict[str, int] = {}
    for header in headers:
        for entry in header.values():
            if entry["dtype"] in _DTYPES:
                sizes[entry["dtype"]] = sizes.get(entry["dtype"], 0) + math.prod(entry["shape"])
    return _DTYPES[max(sizes, key=lambda name: sizes[name])] if sizes else None


def _damaged(file: Path, found: str, expected: str | None = None) -> ArtifactDamaged:
    return ArtifactDamaged(
        "the weight file is cut off or no safetensors file",
        where=file,
        found=found,
        expected=expected,
        do="copy or download it again",
    )
