"""The quantize section: which tool stores the weights in fewer bits, and how."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from swiftcore.recipe.sections.base import Dtype, Section

QuantMethod = Literal["bnb", "torchao", "gptq", "awq", "fp8", "w8a8"]
QuantFormat = Literal["compressed-tensors", "gptq", "awq"]
QuantBackend = Literal["llmcompressor", "gptqmodel", "autoawq", "lmdeploy_lite"]

_BITS: dict[str, tuple[int, ...]] = {
    "bnb": (4, 8),
    "torchao": (8,),
    "gptq": (4, 8),
    "awq": (4,),
    "fp8": (8,),
    "w8a8": (8,),
}
_CALIBRATED = ("gptq", "awq", "w8a8")
_COMPRESSED = "compressed-tensors"
# Fields that only some methods read.
_READ_BY: dict[str, tuple[str, ...]] = {
    "bnb_4bit_quant_type": ("bnb",),
    "bnb_4bit_use_double_quant": ("bnb",),
    "bnb_4bit_compute_dtype": ("bnb",),
    "torchao_scheme": ("torchao",),
    "quant_format": ("gptq", "awq", "fp8", "w8a8"),
    "quant_backend": ("awq",),
    "group_size": ("gptq", "awq"),
    "quant_batch_size": _CALIBRATED,
    "max_length": _CALIBRATED,
}
_REPLACED = ("auto_gptq", "auto-gptq", "autogptq")


class QuantizeSection(Section):
    """Storing the weights in fewer bits."""

    quant_method: QuantMethod = Field(
        default="bnb",
        description="bnb and torchao work here; gptq, awq, fp8 and w8a8 in a backend's environment",
    )
    quant_bits: Literal[4, 8] = Field(
        default=4, description="bits a weight; default: 4, or 8 where a method has no 4"
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(default="nf4", description="4-bit code book")
    bnb_4bit_use_double_quant: bool = Field(default=True, description="quantize the scales as well")
    bnb_4bit_compute_dtype: Dtype | None = Field(
        default=None, description="type of the matmul; default: the model's"
    )
    torchao_scheme: Literal["int8_weight_only", "int8_dynamic"] = Field(
        default="int8_weight_only",
        description="int8_dynamic rounds the activations as well, as they come",
    )
    quant_format: QuantFormat | None = Field(
        default=None,
        description="compressed-tensors (default, by llmcompressor), or the older gptq or awq (by "
        "gptqmodel)",
    )
    quant_backend: Literal["autoawq", "lmdeploy"] | None = Field(
        default=None, description="who writes quant_format awq instead of gptqmodel"
    )
    group_size: int | None = Field(
        default=None,
        ge=1,
        description="weights that share a scale; default: 128, or the largest of 64, 32 and 16 "
        "that divides the model's widths",
    )
    quant_n_samples: int = Field(
        default=64,
        ge=1,
        description="held-out rows that measure the recovery, and training rows that calibrate",
    )
    quant_batch_size: int | None = Field(
        default=None, ge=1, description="calibration rows a step of gptqmodel; default: 1"
    )
    max_length: int | None = Field(
        default=None, ge=1, description="longest calibration row in tokens; default: 2048"
    )
    min_recovery: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="least share of the unquantized next-token accuracy to keep",
    )

    @property
    def bits(self) -> int:
        """Return the bits a weight takes: as asked, or the only choice of the method."""
        return self.quant_bits if "quant_bits" in self.model_fields_set else self._choices[0]

    @property
    def backend(self) -> QuantBackend | None:
        """Return the backend that quantizes, None where it is done in this process."""
        if self.quant_method in ("bnb", "torchao"):
            return None
        if self.is_read_here:
            return "llmcompressor"
        if self.quant_backend == "lmdeploy":
            return "lmdeploy_lite"
        return self.quant_backend or "gptqmodel"

    @property
    def is_read_here(self) -> bool:
        """Whether this project's environment loads the result; if not, gptqmodel's does."""
        return self.quant_format in (None, _COMPRESSED)

    @property
    def is_calibrated(self) -> bool:
        """Whether the method learns from rows."""
        return self.quant_method in _CALIBRATED

    @property
    def _choices(self) -> tuple[int, ...]:
        return _BITS[self.quant_method]

    @field_validator("quant_method", mode="before")
    @classmethod
    def _known_to_live(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() in _REPLACED:
            raise ValueError(
                f"{value} is replaced by gptqmodel, which writes the same format and still runs: "
                "quant_method gptq with quant_format gptq"
            )
        return value

    @model_validator(mode="after")
    def _settings_act(self) -> "QuantizeSection":
        changed = self.model_dump(exclude_defaults=True)
        idle = sorted(
            name
            for name, methods in _READ_BY.items()
            if name in changed and self.quant_method not in methods
        )
        if idle:
            raise ValueError(f"{', '.join(idle)} do nothing with quant_method {self.quant_method}")
        if self.quant_format not in (None, _COMPRESSED, self.quant_method):
            raise ValueError(
                f"quant_format {self.quant_format} is not a form of quant_method "
                f"{self.quant_method}; use {_COMPRESSED}, or leave it out"
            )
        if self.quant_batch_size is not None and self.backend != "gptqmodel":
            raise ValueError("quant_batch_size does nothing: gptqmodel alone takes rows in steps")
        if self.quant_backend is not None and self.is_read_here:
            raise ValueError(f"quant_backend {self.quant_backend} needs quant_format awq")
        if self.bits not in self._choices:
            possible = " or ".join(map(str, self._choices))
            raise ValueError(
                f"quant_method {self.quant_method} stores {possible} bits a weight; "
                f"set quant_bits {possible}, or leave it out"
            )
        return self
