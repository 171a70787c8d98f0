"""The sections of what comes after training but for quantize: merge, evaluate, deploy."""

import re
from typing import Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from swiftcore.recipe.benchmarks import check_benchmarks, check_tool
from swiftcore.recipe.refusals import refuse_value
from swiftcore.recipe.sections.base import NAME_PATTERN, Name, Section
from swiftcore.recipe.sections.serve_backends import (
    InferBackend,
    ToolSettings,
    check_backend_settings,
)

# Why some engines take no adapters beside the model they serve.
_WITHOUT_ADAPTERS = {
    "pt": "transformers serves one model a process",
    "lmdeploy": "LMDeploy's route for token ids takes none",
}
# A version follows after @.
_SERVED_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$"


class MergeSection(Section):
    """Folding an adapter into its base."""

    max_shard_size: str = Field(default="5GB", description="largest weight file")
    max_logit_difference: float = Field(
        default=1e-3,
        gt=0,
        description="largest allowed |merged - adapter| over all logits, float32",
    )


class EvaluateSection(ToolSettings):
    """Answering held-out rows and scoring the answers."""

    metrics: list[Literal["agent", "rouge", "exact_match", "final_number"]] = Field(
        default_factory=lambda: ["rouge", "exact_match"], description="metric families"
    )
    eval_limit: int | None = Field(default=None, ge=1, description="answer only the first rows")
    max_new_tokens: int = Field(default=128, ge=1, description="longest answer in tokens")
    temperature: float = Field(default=0.0, ge=0, description="0 is greedy")
    eval_batch_size: int = Field(default=16, ge=1, description="prompts generated together")
    num_bootstrap: int = Field(
        default=1000, ge=100, description="resamples of the confidence intervals"
    )
    confidence: float = Field(
        default=0.95, gt=0, lt=1, description="width of the confidence intervals"
    )
    seed: int = Field(default=42, description="seed of sampling and of the bootstrap")
    infer_backend: InferBackend = Field(
        default="pt", description="engine that answers; pt is transformers, the others are tools"
    )
    eval_backend: Literal["Native", "EvalScope", "OpenCompass", "LmEval"] = Field(
        default="Native",
        description="who asks and scores eval_dataset; the others need swift env install",
    )
    eval_dataset: list[str] = Field(
        default_factory=list, description="benchmarks to answer, such as gsm8k and mmlu"
    )
    eval_dataset_args: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="settings of a benchmark: local_path, subset_list, few_shot_num, method, ...",
    )
    eval_generation_config: dict[str, Any] | None = Field(
        default=None,
        description="how benchmarks are answered: max_tokens, temperature, top_p, top_k, stop",
    )

    @field_validator("eval_backend", mode="before")
    @classmethod
    def _not_refused(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_value(info.field_name, value)
        return value

    @model_validator(mode="after")
    def _settings_are_the_tool_s(self) -> "EvaluateSection":
        check_backend_settings(self.infer_backend, self)
        return self

    @model_validator(mode="after")
    def _benchmarks_are_known(self) -> "EvaluateSection":
        if self.eval_backend == "Native":
            check_benchmarks(self.eval_dataset, self.eval_dataset_args, self.eval_generation_config)
        else:
            check_tool(self.eval_dataset, self.eval_dataset_args, self.eval_generation_config)
        return self


class Gate(Section):
    """What a model must have shown before it is promoted and served."""

    metric: str = Field(default="Act.EM", description="metric of the evaluation report")
    min_value: float = Field(default=0.0, description="least value of the served candidate")
    min_recovery: float = Field(
        default=0.95, ge=0, description="least share of the merged (or tuned) model's value to keep"
    )
    min_coverage: float = Field(default=1.0, ge=0, le=1, description="least share of rows answered")
    max_drop_from_champion: float = Field(
        default=0.02, ge=0, description="largest allowed loss against the current champion"
    )


class DeploySection(ToolSettings):
    """What is registered and served."""

    name: Name = Field(default="model", description="model name")
    serve: Literal["auto", "adapter", "merged", "quantized", "trained"] = Field(
        default="auto",
        description="candidate to serve; auto: merged where there is one, else trained",
    )
    infer_backend: InferBackend = Field(
        default="pt", description="engine; pt is transformers, the others are tools"
    )
    adapters: list[str] = Field(
        default_factory=list,
        description="NAME=FOLDER of each LoRA adapter that is served beside the model, by its name",
    )
    max_new_tokens: int = Field(default=512, ge=1, description="most tokens one answer may have")
    max_batch_size: int = Field(default=8, ge=1, description="requests generated together")
    max_model_len: int | None = Field(default=None, ge=1, description="longest prompt plus answer")
    served_model_name: str | None = Field(
        default=None,
        pattern=_SERVED_NAME,
        description="model name in requests; default: the model's name",
    )
    owned_by: str = Field(
        default="swiftcore", min_length=1, description="owner shown in the list of models"
    )
    max_logprobs: int = Field(
        default=20, ge=0, description="most top_logprobs that a request may ask for"
    )
    verbose: bool = Field(
        default=False, description="log every request with its tokens' number, not its text"
    )
    log_interval: int = Field(
        default=20, ge=-1, description="seconds between lines of speed and load; -1 is never"
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="of a request that names none; default: 1"
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="of a request that names none; default: 1"
    )
    top_k: int | None = Field(
        default=None, ge=0, description="of a request that names none; default: 0, all tokens"
    )
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=10, description="of a request that names none; default: 1, off"
    )
    num_golden: int = Field(
        default=4, ge=0, description="evaluated answers the endpoint must repeat"
    )
    gate: Gate = Field(default_factory=Gate, description="conditions of promotion")

    @model_validator(mode="after")
    def _settings_are_the_tool_s(self) -> "DeploySection":
        check_backend_settings(self.infer_backend, self)
        if self.infer_backend != "pt" and self.serve == "adapter":
            raise ValueError(
                f"serve: adapter: {self.infer_backend} serves a whole model; add `merge: {{}}`, or "
                "use infer_backend pt"
            )
        return self

    @model_validator(mode="after")
    def _engine_can_sample_so(self) -> "DeploySection":
        if self.infer_backend == "sglang" and self.repetition_penalty not in (None, 1):
            raise ValueError(
                "repetition_penalty: SGLang looks at the answer alone, and everywhere else here "
                "the prompt counts as well; leave it out"
            )
        return self

    @field_validator("log_interval")
    @classmethod
    def _log_waits(cls, value: int) -> int:
        if value == 0:
            raise ValueError("log_interval: 0 seconds; -1 switches the lines off")
        return value

    @model_validator(mode="after")
    def _adapters_have_names_and_a_server(self) -> "DeploySection":
        names = [each.partition("=")[0] for each in self.adapters]
        for each, name in zip(self.adapters, names, strict=True):
            if not re.fullmatch(NAME_PATTERN, name) or not each.partition("=")[2]:
                raise ValueError(f"adapters: {each!r} is not NAME=FOLDER")
        model = self.served_model_name or self.name
        if len({*names, model}) <= len(names):
            raise ValueError(
                f"adapters: each has a name of its own, other than {model}: {', '.join(names)}"
            )
        if names and self.infer_backend in _WITHOUT_ADAPTERS:
            raise ValueError(
                f"adapters: {_WITHOUT_ADAPTERS[self.infer_backend]}; use infer_backend vllm, or "
                "deploy each adapter under a name of its own"
            )
        return self
