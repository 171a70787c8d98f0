"""The quantize section: which tool stores the weights in fewer bits, and how."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from swiftcore.recipe.sections.base import Dtype, Section

QuantMethod = Literal["bnb", "torchao"]

_BITS: dict[str, tuple[int, ...]] = {"bnb": (4, 8), "torchao": (8,)}
# Fields that only some methods read.
_READ_BY: dict[str, tuple[str, ...]] = {
    "bnb_4bit_quant_type": ("bnb",),
    "bnb_4bit_use_double_quant": ("bnb",),
    "bnb_4bit_compute_dtype": ("bnb",),
    "torchao_scheme": ("torchao",),
}
_REPLACED = ("auto_gptq", "auto-gptq", "autogptq")


class QuantizeSection(Section):
    """Storing the weights in fewer bits."""

    quant_method: QuantMethod = Field(
        default="bnb", description="bnb (bitsandbytes) or torchao, both without calibration"
    )
    quant_bits: Literal[4, 8] = Field(
        default=4, description="bits a weight; default: 4 with bnb, 8 with torchao"
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
    quant_n_samples: int = Field(default=64, ge=1, description="rows that measure the recovery")
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
        if self.bits not in self._choices:
            possible = " or ".join(map(str, self._choices))
            raise ValueError(
                f"quant_method {self.quant_method} stores {possible} bits a weight; "
                f"set quant_bits {possible}, or leave it out"
            )
        return self
