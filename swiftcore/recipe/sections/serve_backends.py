"""Settings of the tools that serve a model in an environment of their own: vLLM, SGLang, LMDeploy.

The names are those of the tools' own command lines with the tool's name in front, as in ms-swift.
"""

from typing import Any, Literal

from pydantic import Field, field_validator

from swiftcore.recipe.sections.base import Section

ServeBackend = Literal["vllm", "sglang", "lmdeploy"]
InferBackend = Literal["pt", "vllm", "sglang", "lmdeploy"]
# What this project sets itself when it starts vLLM.
_OURS = (
    "model",
    "model_tag",
    "host",
    "port",
    "uds",
    "api_key",
    "served_model_name",
    "lora_modules",
    "dtype",
    "generation_config",
    "max_logprobs",
)


class ToolSettings(Section):
    """Fields that one serving tool reads each; a section that serves inherits them."""

    vllm_gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of a GPU's memory for vLLM (default 0.9), or of the machine's memory "
        "where there is no GPU (default: a quarter of what is free, for the cache alone)",
    )
    vllm_tensor_parallel_size: int = Field(
        default=1, ge=1, description="devices that share each layer"
    )
    vllm_pipeline_parallel_size: int = Field(
        default=1, ge=1, description="devices that share the layers in sequence"
    )
    vllm_data_parallel_size: int = Field(default=1, ge=1, description="copies of the model")
    vllm_enable_expert_parallel: bool = Field(
        default=False, description="spread experts over devices"
    )
    vllm_max_num_seqs: int = Field(default=256, ge=1, description="sequences processed together")
    vllm_max_model_len: int | None = Field(
        default=None, ge=1, description="longest sequence; default: the model's own"
    )
    vllm_disable_custom_all_reduce: bool = Field(
        default=True, description="reduce with NCCL instead of vLLM's own kernel"
    )
    vllm_enforce_eager: bool | None = Field(
        default=None,
        description="run without CUDA graphs and compilation; default: only where there is no GPU",
    )
    vllm_mm_processor_cache_gb: float | None = Field(
        default=None, ge=0, description="GiB of processed images to keep; default: 4"
    )
    vllm_limit_mm_per_prompt: dict[str, int] | None = Field(
        default=None, description="most images and videos of a prompt"
    )
    vllm_enable_lora: bool = Field(
        default=False, description="let adapters be loaded while the server runs"
    )
    vllm_max_lora_rank: int | None = Field(
        default=None,
        ge=1,
        description="largest adapter rank; default: that of the adapters, at least 16",
    )
    vllm_quantization: str | None = Field(
        default=None, description="quantization of the loaded weights; default: the model's own"
    )
    vllm_enable_prefix_caching: bool | None = Field(
        default=None, description="keep the cache of shared prompt beginnings; default: vLLM's own"
    )
    vllm_engine_kwargs: dict[str, Any] | None = Field(
        default=None, description="further options of vllm serve, by their names"
    )
    sglang_tp_size: int = Field(default=1, ge=1, description="devices that share each layer")
    sglang_pp_size: int = Field(
        default=1, ge=1, description="devices that share the layers in sequence"
    )
    sglang_dp_size: int = Field(default=1, ge=1, description="copies of the model")
    sglang_ep_size: int = Field(default=1, ge=1, description="devices that share the experts")
    sglang_mem_fraction_static: float | None = Field(
        default=None, gt=0, le=1, description="share of GPU memory for weights and cache"
    )
    sglang_context_length: int | None = Field(
        default=None, ge=1, description="longest sequence; default: the model's own"
    )
    sglang_disable_cuda_graph: bool = Field(default=False, description="run without CUDA graphs")
    sglang_quantization: str | None = Field(
        default=None, description="quantization of the loaded weights; default: the model's own"
    )
    sglang_kv_cache_dtype: str = Field(default="auto", description="data type of the cache")
    sglang_enable_dp_attention: bool = Field(
        default=False,
        description="sglang_dp_size copies of the attention alone, and one shared MLP",
    )
    sglang_disable_custom_all_reduce: bool = Field(
        default=True, description="reduce with NCCL instead of SGLang's own kernel"
    )
    lmdeploy_tp: int = Field(default=1, ge=1, description="devices that share each layer")
    lmdeploy_session_len: int | None = Field(
        default=None, ge=1, description="longest sequence; default: the model's own"
    )
    lmdeploy_cache_max_entry_count: float = Field(
        default=0.8, gt=0, le=1, description="share of the free GPU memory for the cache"
    )
    lmdeploy_quant_policy: Literal[0, 4, 8] = Field(
        default=0, description="bits of the cache: 4, 8, or 0 for the model's own type"
    )
    lmdeploy_vision_batch_size: int = Field(default=1, ge=1, description="images encoded together")

    @field_validator("vllm_engine_kwargs")
    @classmethod
    def _further_options_are_others(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for written in value or {}:
            name = written.replace("-", "_")
            if name in _OURS or name.startswith("ssl_"):
                raise ValueError(f"vllm_engine_kwargs: {written} is set by this project")
            if f"vllm_{name}" in cls.model_fields:
                raise ValueError(f"vllm_engine_kwargs: {written} has a field: use vllm_{name}")
        return value


def check_backend_settings(infer_backend: str, settings: ToolSettings) -> None:
    """Refuse settings of tools that don't serve here, and settings that do nothing together.

    Args:
        infer_backend: pt, or the tool that serves.
        settings: the section that holds the settings.

    Raises:
        ValueError: names the settings.
    """
    changed = tool_settings(settings)
    idle = sorted(name for name in changed if not name.startswith(f"{infer_backend}_"))
    if idle:
        raise ValueError(f"{', '.join(idle)} do nothing with infer_backend {infer_backend}")
    if settings.sglang_enable_dp_attention and settings.sglang_dp_size == 1:
        raise ValueError("sglang_enable_dp_attention does nothing with sglang_dp_size 1")


def tool_settings(section: ToolSettings) -> dict[str, Any]:
    """Return the tools' settings of a section that differ from their defaults."""
    return section.model_dump(exclude_defaults=True, include=set(ToolSettings.model_fields))
