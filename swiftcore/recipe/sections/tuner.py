"""The tuner section: which weights are trained."""

import re
from typing import Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from swiftcore.recipe.optimization import (
    TunerOptimization,
)
from swiftcore.recipe.refusals import refuse_value
from swiftcore.recipe.sections.base import Section

TrainType = Literal[
    "lora", "full", "adalora", "vera", "boft", "fourierft", "ia3", "bone", "miss", "loha", "lokr",
    "oft", "hra", "vblora", "randlora", "gralora", "delora", "hira", "waveft", "c3a", "road",
    "shira", "ln_tuning", "adamss", "frod", "pvera", "glora", "unilora", "osf", "tinylora", "psoft",
    "peanut", "supertuning", "deft", "trainable_tokens", "longlora", "llamapro", "adapter", "reft",
]  # fmt: skip
Intervention = Literal[
    "LoreftIntervention", "NoreftIntervention", "ConsreftIntervention", "LobireftIntervention",
    "DireftIntervention", "NodireftIntervention",
]  # fmt: skip
# Starts of LoRA's A and B; bat belongs to bone and miss.
_STARTS = ("true", "false", "gaussian", "orthogonal", "pissa", "olora", "lora-ga", "eva", "bat")
_PISSA_ITERATIONS = re.compile(r"pissa_niter_[1-9]\d*")
_REFUSED_STARTS = {
    "loftq": "peft's LoftQ needs a CUDA device and bitsandbytes",
}


class TunerSection(TunerOptimization, Section):
    """Which weights are trained."""

    train_type: TrainType = Field(default="lora", description="tuner")
    tuner_backend: Literal["peft"] = Field(default="peft", description="library of the tuners")
    target_modules: list[str] = Field(
        default_factory=lambda: ["all-linear"], description="modules to adapt"
    )
    target_regex: str | None = Field(
        default=None, description="regex of modules; replaces target_modules"
    )
    modules_to_save: list[str] = Field(
        default_factory=list, description="modules trained and saved whole beside the adapter"
    )
    target_parameters: list[str] = Field(
        default_factory=list, description="lora: parameters, not modules, to adapt, as of experts"
    )
    init_weights: str = Field(
        default="true",
        description="start of lora: true, false, gaussian, orthogonal, pissa, pissa_niter_[n], "
        "olora, lora-ga, eva; of bone and miss: true, false, bat",
    )
    lora_rank: int = Field(default=8, ge=1, description="rank r of the LoRA update")
    lora_alpha: int = Field(default=32, ge=1, description="LoRA scale; the update is alpha/r * B A")
    lora_dropout: float = Field(
        default=0.05, ge=0, lt=1, description="dropout before the LoRA matrices"
    )
    lora_bias: Literal["none", "all"] = Field(default="none", description="also train biases")
    lora_dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="type of the LoRA matrices; default: float32"
    )
    lora_ga_batch_size: int = Field(
        default=2, ge=1, description="rows a step of the gradient estimate"
    )
    lora_ga_iters: int = Field(default=2, ge=1, description="steps of the gradient estimate")
    lora_ga_max_length: int = Field(
        default=1024, ge=2, description="longest row of the gradient estimate, in tokens"
    )
    lora_ga_direction: Literal["ArBr", "A2rBr", "ArB2r", "random"] = Field(
        default="ArB2r", description="which singular vectors of the gradient start A and B"
    )
    lora_ga_scale: Literal["gd", "unit", "stable", "weightS"] = Field(
        default="stable", description="scaling of the start"
    )
    lora_ga_stable_gamma: int = Field(default=16, ge=1, description="gamma of the stable scaling")
    use_rslora: bool = Field(default=False, description="scale by alpha/sqrt(r)")
    use_dora: bool = Field(default=False, description="train magnitude and direction apart")
    adalora_target_r: int = Field(default=8, ge=1, description="average rank at the end")
    adalora_init_r: int = Field(default=12, ge=1, description="rank at the start")
    adalora_tinit: int = Field(default=0, ge=0, description="steps before ranks are cut")
    adalora_tfinal: int = Field(default=0, ge=0, description="steps with fixed ranks at the end")
    adalora_deltaT: int = Field(default=1, ge=1, description="steps between two cuts")
    adalora_beta1: float = Field(
        default=0.85, gt=0, lt=1, description="smoothing of the importance"
    )
    adalora_beta2: float = Field(
        default=0.85, gt=0, lt=1, description="smoothing of its uncertainty"
    )
    adalora_orth_reg_weight: float = Field(
        default=0.5, ge=0, description="weight of the orthogonality term in the loss"
    )
    vera_rank: int = Field(default=256, ge=1, description="rank of the shared random matrices")
    vera_projection_prng_key: bool = Field(
        default=True, description="store the shared matrices with the adapter"
    )
    vera_dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout before the update")
    vera_d_initial: float = Field(default=0.1, description="start value of vector d")
    boft_block_size: int = Field(default=4, ge=2, description="size of an orthogonal block")
    boft_block_num: int | None = Field(
        default=None, ge=1, description="number of orthogonal blocks, instead of their size"
    )
    boft_dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout of blocks")
    fourier_n_frequency: int = Field(default=2000, ge=1, description="frequencies trained a layer")
    fourier_scaling: float = Field(default=300.0, description="scale of the update")
    llamapro_num_new_blocks: int = Field(default=4, ge=1, description="blocks that are added")
    llamapro_num_groups: int | None = Field(
        default=None, ge=1, description="places they are added at; default: one for each"
    )
    adapter_length: int = Field(default=128, ge=1, description="width of the bottleneck")
    reft_layers: list[int] | None = Field(
        default=None, description="blocks whose output is edited, the first is 0; default: all"
    )
    reft_rank: int = Field(default=4, ge=1, description="dimensions of the edited subspace")
    reft_intervention_type: Intervention = Field(
        default="LoreftIntervention", description="how the output is edited"
    )
    reft_args: dict[str, Any] = Field(
        default_factory=dict, description="reft: dropout, act_fn, add_bias"
    )
    peft_args: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of peft's configuration of this tuner that have no field here",
    )
    freeze_parameters: list[str] = Field(
        default_factory=list, description="full: prefixes of parameters to freeze"
    )
    freeze_parameters_regex: str | None = Field(default=None, description="full: regex to freeze")
    freeze_parameters_ratio: float = Field(
        default=0.0, ge=0, le=1, description="full: share of parameters to freeze, from the first"
    )
    trainable_parameters: list[str] = Field(
        default_factory=list, description="full: prefixes to train in spite of the freeze rules"
    )
    trainable_parameters_regex: str | None = Field(
        default=None, description="full: regex to train in spite of the freeze rules"
    )

    @field_validator("train_type", "tuner_backend", "lora_dtype", mode="before")
    @classmethod
    def _not_refused(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_value(info.field_name, value)
        return value

    @model_validator(mode="after")
    def _known_start(self) -> "TunerSection":
        if self.init_weights not in _STARTS and not _PISSA_ITERATIONS.fullmatch(self.init_weights):
            known = ", ".join([*_STARTS, "pissa_niter_[n]"])
            why = _REFUSED_STARTS.get(self.init_weights)
            raise ValueError(
                f"init_weights {self.init_weights!r} "
                + (f"is refused: {why}" if why else "is not known")
                + f"; choose one of {known}"
            )
        blocks = self.train_type in ("bone", "miss")
        if self.init_weights not in ("true", "false") and blocks != (self.init_weights == "bat"):
            raise ValueError(
                f"init_weights {self.init_weights!r} does not go with train_type {self.train_type}"
            )
        return self
