"""The matrices of a model, from its configuration and weight headers: no torch, no weights read."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftcore.models.facts import safetensors_header
from swiftcore.models.files import read_json, require_model_folder

_HEADS = ("lm_head", "score", "v_head", "classifier", "embed_out")
_EMBEDDINGS = ("wte", "wpe")


@dataclass(frozen=True)
class Matrix:
    """One stored tensor.

    Args:
        name: as in the file, such as model.layers.0.mlp.up_proj.weight.
        shape: entries along each axis.
        num_bytes: on the disk.
    """

    name: str
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def entries(self) -> int:
        """Return the number of entries."""
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        """Return the name of the module that holds it."""
        return self.name.rpartition(".")[0]

    @property
    def is_head(self) -> bool:
        """Tell whether it makes logits or scores."""
        return self.module.rpartition(".")[2] in _HEADS

    @property
    def is_embedding(self) -> bool:
        """Tell whether rows of it are looked up instead of multiplied."""
        last = self.module.rpartition(".")[2]
        looked_up = "embed" in last or last in _EMBEDDINGS
        return len(self.shape) == 2 and looked_up and not self.is_head

    @property
    def is_linear(self) -> bool:
        """Tell whether it is the weight of a linear layer that is no head."""
        plain = len(self.shape) == 2 and self.name.endswith(".weight")
        return plain and not (self.is_head or self.is_embedding or ".experts." in self.name)


@dataclass(frozen=True)
class ModelShape:
    """All tensors of a model folder, and the part of its configuration on text."""

    tensors: tuple[Matrix, ...]
    config: dict[str, Any]
    quantized: bool

    @property
    def entries(self) -> int:
        """Return the number of parameters; of packed weights, the number of stored entries."""
        return sum(tensor.entries for tensor in self.tensors)

    @property
    def num_bytes(self) -> int:
        """Return the size of the weights as they are stored."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    @property
    def entry_bytes(self) -> int:
        """Return the size of an entry of the largest tensor."""
        largest = max(self.tensors, key=lambda tensor: tensor.entries)
        return max(1, round(largest.num_bytes / largest.entries))

    def number(self, *names: str) -> int:
        """Return the first of these values that the configuration has, else 0."""
        return next((int(self.config[name]) for name in names if self.config.get(name)), 0)

    def linear(self) -> Iterable[Matrix]:
        """Return the weights of linear layers but the head."""
        return (tensor for tensor in self.tensors if tensor.is_linear)


def model_shape(folder: Path) -> ModelShape:
    """Return the shape of the model in a folder.

    Raises:
        ModelMissing: there is no model in the folder.
        ArtifactDamaged: the configuration or a weight file can't be read.
    """
    require_model_folder(folder)
    config = read_json(folder / "config.json")
    tensors: list[Matrix] = []
    for file in sorted(folder.glob("*.safetensors")):
        for name, entry in safetensors_header(file).items():
            begin, end = entry["data_offsets"]
            tensors.append(Matrix(name, tuple(entry["shape"]), end - begin))
    text = config.get("text_config") or config
    return ModelShape(tuple(tensors), text, bool(config.get("quantization_config")))
