"""Quantizing a model while it is loaded, for QLoRA: the folder keeps its weights as they are."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from swiftcore.errors import EnvironmentMissing
from swiftcore.models.files import read_json
from swiftcore.recipe.sections import Dtype, ModelSection

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


# What transformers needs beside itself to read a stored method.
_READERS = {
    "bitsandbytes": "bitsandbytes",
    "torchao": "torchao",
    "compressed-tensors": "compressed_tensors",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
}


def require_reader(folder: Path) -> None:
    """Refuse a quantized model that transformers can't read with what is installed.

    Raises:
        EnvironmentMissing: a package is missing.
    """
    config = read_json(folder / "config.json").get("quantization_config") or {}
    method = str(config.get("quant_method"))
    package = _READERS.get(method)
    if package is not None and find_spec(package) is None:
        raise EnvironmentMissing(
            f"a model quantized as {method} needs {package} to be read",
            where=folder,
            do="serve it with an engine of its own (vLLM), or quantize to compressed-tensors"
            if package == "gptqmodel"
            else "pip install 'swiftcore[quantize]'",
        )


class LoadQuantization(BaseModel):
    """How weights are stored in memory; fields as in `ModelSection`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: Literal[4, 8]
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True
    compute_dtype: Dtype | None = None
    storage: str | None = None

    @classmethod
    def of(cls, section: ModelSection) -> "LoadQuantization | None":
        """Return what the section asks for, None when weights are loaded as they are."""
        if section.quant_bits is None:
            return None
        return cls(
            bits=section.quant_bits,
            quant_type=section.bnb_4bit_quant_type,
            double_quant=section.bnb_4bit_use_double_quant,
            compute_dtype=section.bnb_4bit_compute_dtype,
            storage=section.bnb_4bit_quant_storage,
        )

    @property
    def entry_bytes(self) -> float:
        """Return the bytes a weight takes, with its share of the scale of its block of 64."""
        if self.bits == 8:
            return 1.0
        return 0.5 + (1 / 64 if self.double_quant else 4 / 64)

    def describe(self) -> str:
        """Return one line for the log and the record."""
        kind = "int8" if self.bits == 8 else self.quant_type
        return f"frozen weights are held as {kind} by bitsandbytes"

    def config(self, default_dtype: str) -> "BitsAndBytesConfig":
        """Return the settings of transformers.

        Args:
            default_dtype: type of the matrix products where none is named.

        Raises:
            EnvironmentMissing: bitsandbytes is not installed.
        """
        if find_spec("bitsandbytes") is None:
            raise EnvironmentMissing(
                "quantization to 4 or 8 bits needs bitsandbytes",
                where="quant_method",
                do="pip install bitsandbytes",
            )
        from transformers import BitsAndBytesConfig

        if self.bits == 8:
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=self.compute_dtype or default_dtype,
            bnb_4bit_quant_storage=self.storage,
        )
