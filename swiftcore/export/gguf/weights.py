"""Weights as GGUF stores them: llama.cpp's names and layout, in one of four types.

Shape suffixes: R rows (output features), C columns (input features).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import UsageError
from swiftcore.export.gguf.outtypes import Outtype

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import torch

# llama.cpp quantizes along a row, 32 weights a block.
_BLOCK = 32
# These families interleave the two halves of a rotary pair; the others keep them apart.
_ROTARY_INTERLEAVED = ("llama",)


@dataclass(frozen=True)
class Weight:
    """One tensor of the file: its name there, its type, and how to read it."""

    name: str
    source: str
    kind: "gguf.GGMLQuantizationType"
    shape: tuple[int, ...]
    num_bytes: int


class WeightReader:
    """Reads the tensors of a model folder one at a time, so that a model needs no memory twice."""

    def __init__(self, folder: Path, config: dict[str, Any], outtype: Outtype) -> None:
        self._config = config
        self._outtype = outtype
        self._files = _tensors_by_file(folder)
        self._folder = folder

    def __iter__(self) -> Iterator[Weight]:
        """List the tensors in the order of their names in the model folder."""
        import gguf

        names = gguf.get_tensor_name_map(_architecture(self._config), _layers(self._config))
        for source, (_, shape) in sorted(self._files.items()):
            if source == "lm_head.weight" and self._config.get("tie_word_embeddings"):
                continue
            name = names.get_name(source, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise UsageError(
                    "the model has a weight that the format has no name for",
                    where=self._folder,
                    found=source,
                    do="serve the safetensors folder (swift deploy)",
                )
            kind = self._kind(shape)
            block, size = gguf.GGML_QUANT_SIZES[kind]
            num_bytes = shape[-1] // block * size
            for length in shape[:-1]:
                num_bytes *= length
            yield Weight(name, source, kind, shape, num_bytes)

    def data(self, weight: Weight) -> "np.ndarray[Any, Any]":
        """Return a tensor's bytes in the type it is stored in.

        Raises:
            UsageError: a weight is beyond the range of the type.
        """
        import gguf
        import numpy as np

        values = self.values(weight).numpy()
        data = gguf.quants.quantize(values, weight.kind)
        if weight.kind == gguf.GGMLQuantizationType.F16 and not np.isfinite(data).all():
            raise UsageError(
                "a weight is too large for 16-bit floats of type f16",
                where=f"{self._folder}: {weight.source}",
                found=f"largest {abs(values).max():.3g}",
                expected="at most 65504",
                do="use --to_gguf bf16 or f32",
            )
        return data

    def values(self, weight: Weight) -> "torch.Tensor":
        """Return a tensor in float32 in the layout of the file."""
        import torch
        from safetensors import safe_open

        file, _ = self._files[weight.source]
        with safe_open(file, framework="pt") as tensors:
            found = tensors.get_tensor(weight.source).to(torch.float32)
        heads = _rotary_heads(weight.source, self._config)
        return found if heads is None else interleaved(found, heads)

    def _kind(self, shape: tuple[int, ...]) -> "gguf.GGMLQuantizationType":
        import gguf

        kinds = gguf.GGMLQuantizationType
        if len(shape) == 1:
            return kinds.F32  # norms and biases: small, and llama.cpp adds them in float32
        if self._outtype == "q8_0" and shape[-1] % _BLOCK:
            return kinds.F16
        return kinds[self._outtype.upper()]


def interleaved(weight_RC: "torch.Tensor", num_heads: int) -> "torch.Tensor":
    """Return a query or key projection with the halves of each rotary pair side by side.

    transformers turns dimension i with i + head_dim / 2; llama.cpp, as the first Llama code, turns
    neighbours.
    """
    rows = weight_RC.shape[0]
    halves = weight_RC.reshape(num_heads, 2, rows // num_heads // 2, *weight_RC.shape[1:])
    return halves.transpose(1, 2).reshape(weight_RC.shape).contiguous()


def _rotary_heads(source: str, config: dict[str, Any]) -> int | None:
    if config["model_type"] not in _ROTARY_INTERLEAVED:
        return None
    if ".q_proj." in source:
        return config["num_attention_heads"]
    return config["num_key_value_heads"] if ".k_proj." in source else None


def _tensors_by_file(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    from swiftcore.models.facts import safetensors_header

    return {
        name: (file, tuple(entry["shape"]))
        for file in sorted(folder.glob("*.safetensors"))
        for name, entry in safetensors_header(file).items()
    }


def _architecture(config: dict[str, Any]) -> "gguf.MODEL_ARCH":
    import gguf

    return gguf.MODEL_ARCH[config["model_type"].upper()]


def _layers(config: dict[str, Any]) -> int:
    return config["num_hidden_layers"]
