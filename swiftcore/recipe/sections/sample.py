"""The section of `swift sample`: how answers are drawn, scored and chosen."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from swiftcore.recipe.refusals import refuse_value
from swiftcore.recipe.sections.results import EvaluateSection
from swiftcore.recipe.sections.serve_backends import ToolSettings, tool_settings

SamplerEngine = Literal["pt", "vllm", "sglang", "lmdeploy", "client", "no"]
# What says how answers are drawn; an earlier run has done that where they come from its file.
_OF_DRAWING = (
    *("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "stop_words"),
    *("seed", "max_batch_size"),
)
_TOOLS = ("vllm", "sglang", "lmdeploy")
_ENDPOINT_REQUESTS = 16
_ANSWERS_AT_ONCE = 64
# How many times as many answers as are made at once a batch of questions wants, by default: its
# last answers leave places empty, and what a kill costs is one batch.
_ROUNDS_A_BATCH = 4


class SampleSection(ToolSettings):
    """Drawing several answers to each question, scoring them and keeping the best.

    It belongs to a command and not to a recipe.
    """

    sampler_type: Literal["sample", "distill"] = Field(
        default="sample", description="a model's own answers, or those of a teacher at base_url"
    )
    sampler_engine: SamplerEngine | None = Field(
        default=None,
        description="pt, vllm, sglang, lmdeploy; client: an endpoint; no: answers come from "
        "cache_files; default: pt, and client with sampler_type distill",
    )
    base_url: str | None = Field(
        default=None,
        description="address of the endpoint of sampler_type distill, such as "
        "http://HOST:PORT/v1; its key is read from OPENAI_API_KEY",
    )
    num_return_sequences: int = Field(
        default=64,
        ge=1,
        description="answers to each question; with sampler_engine no: use the first ones "
        "(default: all)",
    )
    num_sampling_per_gpu_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="questions worked on together and written at once; default: as many as keep "
        "max_batch_size answers in the making",
    )
    num_sampling_per_gpu_batches: int | None = Field(
        default=None, ge=1, description="stop after so many batches; default: all questions"
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        description=f"answers made at a time; default: {_ANSWERS_AT_ONCE}, and "
        f"{_ENDPOINT_REQUESTS} requests to an endpoint",
    )
    data_range: list[int] | None = Field(
        default=None,
        description="`2 3` takes the last of 3 parts of the dataset; together the parts hold "
        "every row once",
    )
    max_new_tokens: int = Field(default=2048, ge=1, description="longest answer in tokens")
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sample among the likeliest tokens that reach this"
    )
    top_k: int = Field(
        default=0, ge=0, description="sample among this many likeliest tokens; 0: all"
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0, description="lower the score of tokens already seen; 1 is off"
    )
    stop_words: list[str] = Field(
        default_factory=list, description="texts that end an answer, beside the end token"
    )
    seed: int = Field(
        default=42, description="every answer to every question draws from a stream of its own"
    )
    orm_model: str | None = Field(
        default=None,
        description="outcome reward: accuracy, math, exact_match, format, react_format, or one "
        "that a file of external_plugins registers",
    )
    prm_model: str | None = Field(
        default=None,
        description="folder of a reward model (one output) that scores question and answer, or a "
        "reward that a file of external_plugins registers",
    )
    prm_threshold: float = Field(
        default=0.0, description="an answer is kept when prm_model scores it above this"
    )
    n_best_to_keep: int = Field(default=5, ge=1, description="best answers kept of a question")
    easy_query_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="leave a question out when more than this share of its answers is right",
    )
    external_plugins: list[str] = Field(
        default_factory=list, description="Python files that register rewards"
    )
    engine_kwargs: dict[str, Any] | None = Field(
        default=None,
        description="further settings of vllm, sglang or lmdeploy, without the tool's name",
    )
    cache_files: list[str] = Field(
        default_factory=list,
        description="output of earlier runs, whose answers are scored with sampler_engine no",
    )

    @property
    def engine(self) -> SamplerEngine:
        """Who answers."""
        return self.sampler_engine or ("client" if self.sampler_type == "distill" else "pt")

    @property
    def answers_at_once(self) -> int:
        """Answers that are made at a time."""
        default = _ENDPOINT_REQUESTS if self.engine == "client" else _ANSWERS_AT_ONCE
        return self.max_batch_size or default

    @property
    def questions_a_batch(self) -> int:
        """Questions whose answers are drawn, scored and written together."""
        wanted = _ROUNDS_A_BATCH * self.answers_at_once
        return self.num_sampling_per_gpu_batch_size or max(1, wanted // self.num_return_sequences)

    @property
    def drawing_seed(self) -> int | None:
        """The seed, None where the engine takes none."""
        return None if self.engine == "lmdeploy" and self.temperature > 0 else self.seed

    @property
    def engine_section(self) -> EvaluateSection:
        """The engine and its settings, as what opens engines reads them.

        Raises:
            ValueError: the engine has no such setting.
        """
        engine = self.engine
        backend = engine if engine in _TOOLS else "pt"
        settings = tool_settings(self) | _settings_of(engine, self.engine_kwargs or {})
        return EvaluateSection.model_validate({"infer_backend": backend, **settings})

    @field_validator("sampler_type", mode="before")
    @classmethod
    def _not_refused(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_value(info.field_name, value)
        return value

    @field_validator("data_range")
    @classmethod
    def _is_a_part(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and not (len(value) == 2 and 0 <= value[0] < value[1]):
            raise ValueError(
                "data_range is a part's number, from 0, and the number of parts, such as 2 3"
            )
        return value

    @model_validator(mode="after")
    def _engine_fits(self) -> "SampleSection":
        engine = self.engine
        if (self.sampler_type == "distill") != (engine == "client") and engine != "no":
            raise ValueError(
                f"sampler_engine {engine} does not go with sampler_type {self.sampler_type}: "
                "distill asks an endpoint (client), sample a model"
            )
        if (engine == "client") != (self.base_url is not None):
            raise ValueError("base_url is the address of sampler_type distill; give both")
        if (engine == "no") != bool(self.cache_files):
            raise ValueError("cache_files are read with sampler_engine no; give both")
        if engine == "lmdeploy" and "seed" in self.model_fields_set and self.temperature > 0:
            raise ValueError("seed: LMDeploy's route for token ids takes none; leave it out")
        return self

    @model_validator(mode="after")
    def _every_setting_acts(self) -> "SampleSection":
        given = self.model_fields_set
        if self.engine == "no" and (idle := [name for name in _OF_DRAWING if name in given]):
            raise ValueError(f"{', '.join(idle)} do nothing with answers from cache_files")
        if self.orm_model is None and self.easy_query_threshold is not None:
            raise ValueError("easy_query_threshold needs orm_model, which says what is right")
        if self.prm_model is None and "prm_threshold" in given:
            raise ValueError("prm_threshold does nothing without prm_model")
        if self.orm_model is None and self.prm_model is None:
            for name in ("n_best_to_keep", "external_plugins"):
                if name in given:
                    raise ValueError(f"{name} does nothing without orm_model or prm_model")
        if self.num_sampling_per_gpu_batches and self.num_sampling_per_gpu_batch_size is None:
            raise ValueError(
                "num_sampling_per_gpu_batches counts batches of num_sampling_per_gpu_batch_size "
                "questions; give both"
            )
        return self

    @model_validator(mode="after")
    def _answers_differ(self) -> "SampleSection":
        if self.engine == "no" or self.temperature > 0:
            return self
        if self.num_return_sequences > 1:
            raise ValueError(
                "temperature 0 gives the same answer each time; raise it, or set "
                "num_return_sequences to 1"
            )
        idle = [name for name in ("top_p", "top_k") if name in self.model_fields_set]
        if idle:
            raise ValueError(f"{', '.join(idle)} do nothing with temperature 0")
        return self

    @model_validator(mode="after")
    def _settings_are_the_engine_s(self) -> "SampleSection":
        _ = self.engine_section
        return self


def _settings_of(engine: SamplerEngine, given: dict[str, Any]) -> dict[str, Any]:
    """Return a tool's own names of settings as the fields they are here.

    Raises:
        ValueError: the engine is no tool, or the tool has no such setting.
    """
    if given and engine not in _TOOLS:
        raise ValueError(
            f"engine_kwargs {', '.join(given)}: sampler_engine {engine} has no further settings; "
            "max_batch_size, num_threads and device are arguments of their own"
        )
    fields: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in given.items():
        known = f"{engine}_{name}"
        (fields if known in ToolSettings.model_fields else others)[name] = value
    if others and engine != "vllm":
        names = [name for name in ToolSettings.model_fields if name.startswith(engine)]
        raise ValueError(
            f"engine_kwargs {', '.join(others)}: no setting of {engine} here; known: "
            + ", ".join(name.removeprefix(f"{engine}_") for name in names)
        )
    settings = {f"{engine}_{name}": value for name, value in fields.items()}
    return settings | ({"vllm_engine_kwargs": others} if others else {})
