"""The model section: which base, or which small model made from nothing."""

from typing import Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from swiftcore.recipe.refusals import refuse_value
from swiftcore.recipe.sections.base import Dtype, Section
from swiftcore.recipe.tasks import Pooling, ProblemType, Task, TaskType, task_of


class ScratchModel(Section):
    """Shape of a model that is built here with random weights, for `model.scratch`."""

    architecture: Literal["qwen3", "qwen2", "llama"] = Field(
        default="qwen3", description="model family"
    )
    hidden_size: int = Field(default=192, ge=8, description="width of the residual stream")
    intermediate_size: int = Field(default=512, ge=8, description="width inside the MLP")
    num_hidden_layers: int = Field(default=4, ge=1, description="transformer blocks")
    num_attention_heads: int = Field(default=4, ge=1, description="query heads")
    num_key_value_heads: int = Field(default=2, ge=1, description="key/value heads")
    head_dim: int | None = Field(
        default=None, ge=4, description="size of one head; default hidden/heads"
    )
    max_position_embeddings: int = Field(
        default=2048, ge=16, description="longest sequence, in tokens"
    )
    tie_word_embeddings: bool = Field(default=True, description="share input and output embeddings")
    rope_theta: float = Field(default=10000.0, gt=0, description="base of the rotary frequencies")
    initializer_range: float = Field(
        default=0.02, gt=0, description="standard deviation of the random weights"
    )
    word_pattern: str | None = Field(
        default=None, description="regex of the words that BPE merges stay inside; default: GPT-4's"
    )
    vocab_size: int = Field(
        default=4096, ge=300, description="entries of the byte-level BPE trained on the dataset"
    )
    tokenizer: str | None = Field(
        default=None, description="folder with a tokenizer.json to use instead of training one"
    )
    seed: int = Field(default=42, description="seed of the random weights")


class ModelSection(Section):
    """Which model everything starts from."""

    model: str | None = Field(
        default=None,
        description="local folder, recipe:PATH, artifact:FINGERPRINT or models:/name@alias",
    )
    scratch: ScratchModel | None = Field(
        default=None,
        description="build the base model here with random weights instead of loading one",
    )
    torch_dtype: Dtype | None = Field(
        default=None, description="data type of the weights; default: as stored"
    )
    attn_impl: Literal["sdpa", "eager"] | None = Field(
        default=None, description="attention implementation; default: transformers' choice"
    )
    rope_scaling: str | dict[str, Any] | None = Field(
        default=None,
        description="stretch rotary positions: linear, dynamic, yarn, or transformers' settings",
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="longest sequence that rope_scaling makes room for"
    )
    new_special_tokens: list[str] = Field(
        default_factory=list, description="words that become tokens, or .txt files that list them"
    )
    adapters: list[str] = Field(
        default_factory=list,
        description="adapter over the model that training goes on with: a folder, "
        "artifact:FINGERPRINT or models:/name@alias",
    )
    frozen_adapters: list[str] = Field(
        default_factory=list,
        description="adapters that the model is folded with before all else, first to last; what "
        "is trained goes over them",
    )
    quant_method: Literal["bnb"] | None = Field(
        default=None, description="train over weights that are quantized while loading (QLoRA)"
    )
    quant_bits: Literal[4, 8] | None = Field(
        default=None, description="bits of a weight, with quant_method"
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(default="nf4", description="4-bit code book")
    bnb_4bit_use_double_quant: bool = Field(default=True, description="quantize the scales as well")
    bnb_4bit_compute_dtype: Dtype | None = Field(
        default=None, description="type of the products with 4-bit weights; default: the model's"
    )
    bnb_4bit_quant_storage: Literal["uint8", "float16", "bfloat16", "float32"] | None = Field(
        default=None, description="type that packed 4-bit weights are held in; default: uint8"
    )
    task_type: TaskType = Field(default="causal_lm", description="what the model is trained to do")
    num_labels: int | None = Field(
        default=None, ge=1, description="seq_cls: classes, or 1 for regression"
    )
    problem_type: ProblemType | None = Field(
        default=None,
        description="seq_cls: what the outputs mean; default: regression with one, else one class",
    )
    pooling: Pooling | None = Field(
        default=None,
        description="embedding: the token or mean that stands for a text; default: the folder's "
        "own, else last for models that see the past alone, mean for the others",
    )

    @field_validator("quant_method", mode="before")
    @classmethod
    def _not_refused(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_value(info.field_name, value)
        return value

    @model_validator(mode="after")
    def _quantization_is_whole(self) -> "ModelSection":
        if (self.quant_method is None) != (self.quant_bits is None):
            raise ValueError("model.quant_method and model.quant_bits (4 or 8) go together")
        idle = sorted(
            name
            for name in self.model_dump(exclude_defaults=True)
            if name.startswith("bnb_4bit_") and self.quant_bits != 4
        )
        if idle:
            raise ValueError(f"{', '.join(idle)} do nothing without model.quant_bits 4")
        return self

    @property
    def task(self) -> Task:
        """What the model is trained to do."""
        return task_of(self.task_type, self.num_labels, self.problem_type, self.pooling)

    @model_validator(mode="after")
    def _task_is_whole(self) -> "ModelSection":
        task_of(self.task_type, self.num_labels, self.problem_type, self.pooling)
        return self

    @model_validator(mode="after")
    def _stretched_to_a_length(self) -> "ModelSection":
        rope = self.rope_scaling
        named = isinstance(rope, str) and not rope.lstrip().startswith("{")
        if named and self.max_model_len is None:
            raise ValueError("model.rope_scaling needs model.max_model_len, which gives its factor")
        if self.max_model_len is not None and self.rope_scaling is None:
            raise ValueError("model.max_model_len does nothing without model.rope_scaling")
        return self

    @model_validator(mode="after")
    def _one_adapter(self) -> "ModelSection":
        if len(self.adapters) > 1:
            raise ValueError(
                "model.adapters: one adapter is trained at a time, for the sum of two is one of a "
                "larger rank; name those it goes over in model.frozen_adapters"
            )
        for name in ("adapters", "frozen_adapters"):
            if getattr(self, name) and self.scratch is not None:
                raise ValueError(f"model.{name}: no adapter was trained over a model that is new")
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSection":
        if (self.model is None) == (self.scratch is None):
            raise ValueError("give either model.model or model.scratch, and not both")
        return self
