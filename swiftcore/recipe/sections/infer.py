"""The settings of `swift infer`: a model answers rows of a dataset, or a person."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from swiftcore.recipe.sections.serve_backends import (
    InferBackend,
    ToolSettings,
    check_backend_settings,
)


class InferSection(ToolSettings):
    """How a model answers rows, or a person. No stage reads this: it belongs to a command."""

    infer_backend: InferBackend = Field(
        default="pt", description="engine that answers; pt is transformers, the others are tools"
    )
    load_data_args: bool = Field(
        default=False, description="answer the rows held out of the training of this model"
    )
    val_dataset_sample: int | None = Field(
        default=None, ge=1, description="answer this many of the rows"
    )
    result_path: Path | None = Field(
        default=None, description="file for the answers; default: a name of its own in ./result"
    )
    max_batch_size: int = Field(
        default=1, ge=-1, description="prompts generated together by pt; -1: all"
    )
    write_batch_size: int = Field(
        default=1000, ge=-1, description="most answers held before they are written; -1: all"
    )
    metric: Literal["acc", "rouge"] | None = Field(
        default=None,
        description="score of the answers against the rows' own: acc (equal) or rouge",
    )
    reranker_use_activation: bool = Field(
        default=True, description="a reranker's scores go through a sigmoid"
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="longest answer in tokens; default: what the model can hold"
    )
    temperature: float | None = Field(
        default=None, ge=0, description="0 is greedy; default: generation_config.json"
    )
    top_k: int | None = Field(
        default=None, ge=0, description="0 keeps all tokens; default: generation_config.json"
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="1 keeps all tokens; default: generation_config.json"
    )
    repetition_penalty: float | None = Field(
        default=None, gt=0, description="1 is off; default: generation_config.json"
    )
    num_beams: int = Field(default=1, ge=1, description="1: answers are not searched for in beams")
    stop_words: list[str] = Field(
        default_factory=list, description="further texts that end an answer and stay in it"
    )
    response_prefix: str | None = Field(
        default=None,
        description="text that every answer starts with and that belongs to it; default: what the "
        "template opens answers with, which does not",
    )
    logprobs: bool = Field(default=False, description="tell how likely each token of an answer was")
    top_logprobs: int | None = Field(
        default=None, ge=0, description="tell it of so many likeliest tokens in each place as well"
    )
    stream: bool | None = Field(
        default=None,
        description="print answers as they grow; default: in a conversation, not over rows",
    )
    seed: int = Field(default=42, description="seed of sampling; each row draws its own numbers")
    max_model_len: int | None = Field(
        default=None, ge=1, description="longest prompt plus answer; default: the model's own"
    )

    @field_validator("max_batch_size", "write_batch_size")
    @classmethod
    def _is_a_size(cls, value: int) -> int:
        if value == 0:
            raise ValueError("0 is no size; -1 means no limit")
        return value

    @field_validator("num_beams")
    @classmethod
    def _is_one_beam(cls, value: int) -> int:
        if value > 1:
            raise ValueError(
                "num_beams: no engine here searches in beams (vLLM, SGLang and LMDeploy serve no "
                "such requests either); temperature 0 takes the likeliest token"
            )
        return value

    @field_validator("stop_words")
    @classmethod
    def _words_are_not_empty(cls, value: list[str]) -> list[str]:
        if not all(value):
            raise ValueError("stop_words: an empty text would end every answer at once")
        return value

    @model_validator(mode="after")
    def _likeliest_tokens_are_told(self) -> "InferSection":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs does nothing without logprobs true")
        return self

    @model_validator(mode="after")
    def _settings_are_the_engine_s(self) -> "InferSection":
        check_backend_settings(self.infer_backend, self)
        if self.infer_backend != "pt" and "max_batch_size" in self.model_fields_set:
            raise ValueError(
                f"max_batch_size does nothing with infer_backend {self.infer_backend}, which "
                "batches requests itself"
            )
        return self
