"""How gradients become updates: fields of the tuner and train sections, and what goes together.

The fields stand in the two sections where ms-swift has them, and decide one thing together, so
they are declared and checked here.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, model_validator

from swiftcore.recipe.optimizers import DEFAULT, OPTIMIZERS, OptimizerKind, why_not

if TYPE_CHECKING:
    from swiftcore.recipe.sections import TrainSection, TunerSection

# Values of train.optimizer that this project makes.
OPTIMIZER_PLANS = ("default", "galore", "lorap", "muon", "multimodal")
# What can step in GaLore's projection: its update depends on gradients alone, not on weights.
_BELOW_GALORE = (
    "adamw_torch", "adamw_torch_fused", "adamw_8bit", "adamw_bnb_8bit", "adafactor", "sgd",
)  # fmt: skip
_QUANTIZED_GALORE = ("adamw_8bit", "adamw_bnb_8bit")
_WITH_A_AND_B = ("lora", "longlora")
_FLAT_SCHEDULES = ("constant", "constant_with_warmup")
# Which GaLore fields need which switch.
_GALORE_SWITCHES = {
    "use_galore": (
        "galore_target_modules", "galore_rank", "galore_update_proj_gap", "galore_scale",
        "galore_proj_type", "galore_with_embedding", "galore_quantization",
    ),
    "galore_quantization": (
        "galore_proj_quant", "galore_cos_threshold", "galore_gamma_proj", "galore_queue_size",
    ),
    "galore_proj_quant": ("galore_proj_bits", "galore_proj_group_size"),
}  # fmt: skip


class TunerOptimization(BaseModel):
    """Fields of the tuner section about learning rates, projections and resting layers."""

    freeze_llm: bool = Field(
        default=False, description="multimodal: leave the language model untrained"
    )
    freeze_vit: bool = Field(
        default=True, description="multimodal: leave vision and audio encoders untrained"
    )
    freeze_aligner: bool = Field(
        default=True, description="multimodal: leave the aligner untrained"
    )
    lorap_lr_ratio: float | None = Field(
        default=None, gt=0, description="LoRA+: learning rate of B over that of A"
    )
    use_galore: bool = Field(default=False, description="project gradients to a low rank (GaLore)")
    galore_target_modules: list[str] | None = Field(
        default=None, description="modules to project; default: linear layers of the blocks"
    )
    galore_rank: int = Field(default=128, ge=1, description="rank of the projection")
    galore_update_proj_gap: int = Field(default=50, ge=1, description="steps between projections")
    galore_scale: float = Field(default=1.0, gt=0, description="scale of the projected update")
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = Field(
        default="std", description="side of the projection; std: the smaller one"
    )
    galore_with_embedding: bool = Field(default=False, description="project the embedding too")
    galore_quantization: bool = Field(
        default=False, description="Q-GaLore: moments in 8 bits, projections renewed by need"
    )
    galore_proj_quant: bool = Field(default=False, description="store projections in few bits")
    galore_proj_bits: Literal[4, 8] = Field(default=4, description="bits of such a projection")
    galore_proj_group_size: int = Field(
        default=256,
        ge=2,
        multiple_of=2,
        description="numbers that share a scale in such a projection",
    )
    galore_cos_threshold: float = Field(
        default=0.4, ge=0, le=1, description="similarity from which projections are renewed less"
    )
    galore_gamma_proj: int = Field(
        default=2, ge=2, description="factor by which the gap between them grows then"
    )
    galore_queue_size: int = Field(
        default=5, ge=1, description="projections whose mean similarity counts"
    )
    lisa_activated_layers: int = Field(
        default=0, ge=0, description="full: blocks trained at a time (LISA); 0 is off"
    )
    lisa_step_interval: int = Field(
        default=20, ge=1, description="optimizer steps until other blocks are drawn"
    )

    @model_validator(mode="after")
    def _switched_on(self) -> "TunerOptimization":
        for switch, names in _GALORE_SWITCHES.items():
            idle = [name for name in names if self._is_set(name)]
            if idle and not getattr(self, switch):
                raise ValueError(f"tuner.{idle[0]} does nothing without tuner.{switch}")
        if self._is_set("lisa_step_interval") and not self.lisa_activated_layers:
            raise ValueError("tuner.lisa_step_interval does nothing without lisa_activated_layers")
        return self

    def _is_set(self, name: str) -> bool:
        return getattr(self, name) != type(self).model_fields[name].default


class TrainOptimization(BaseModel):
    """Fields of the train section about the optimizer."""

    optim: str | None = Field(
        default=None, description=f"optimizer, as transformers names it; default: {DEFAULT}"
    )
    optim_args: dict[str, bool | float] | None = Field(
        default=None, description="settings of the optimizer that have no field, such as momentum"
    )
    optimizer: str | None = Field(
        default=None,
        description="muon, what the fields of GaLore, LoRA+ and the towers' rates imply, or an "
        "optimizer that a file of external_plugins registers",
    )
    vit_lr: float | None = Field(
        default=None, gt=0, description="multimodal: peak rate of vision and audio encoders"
    )
    aligner_lr: float | None = Field(
        default=None, gt=0, description="multimodal: peak rate of the aligner"
    )

    @model_validator(mode="after")
    def _known_optimizer(self) -> "TrainOptimization":
        problem = self.optim and why_not(self.optim)
        if problem:
            raise ValueError(problem)
        if self.optimizer == "muon" and self.optim is not None:
            raise ValueError(
                "train.optimizer muon brings its own AdamW for what is no matrix; remove "
                "train.optim"
            )
        if self.is_own_optimizer() and self.optim is not None:
            raise ValueError(
                f"train.optimizer {self.optimizer} is what steps the weights; remove train.optim"
            )
        if self.is_own_optimizer() and not getattr(self, "external_plugins", ()):
            raise ValueError(
                f"train.optimizer {self.optimizer!r} is not known; choose one of "
                f"{', '.join(OPTIMIZER_PLANS)}, or register it in a file of train.external_plugins"
            )
        odd = sorted(set(self.optim_args or {}).difference(self.kind().args))
        if odd:
            known = ", ".join(self.kind().args) or "none"
            raise ValueError(
                f"train.optim {self.kind().name} has no setting {odd[0]!r}; it has: {known}"
            )
        return self

    def is_own_optimizer(self) -> bool:
        """Tell whether the optimizer comes from a file of the user's own."""
        return self.optimizer is not None and self.optimizer not in OPTIMIZER_PLANS

    def kind(self) -> OptimizerKind:
        """Return what is known of the chosen optimizer."""
        return OPTIMIZERS[self.optim or DEFAULT]


def optimization_conflict(train: "TrainSection", tuner: "TunerSection") -> str | None:
    """Return why these two sections can't train together, None when they can."""
    checks = (_idle_adam, _plug_in, _lorap, _galore, _lisa, _schedule, _spread)
    return next((found for check in checks if (found := check(train, tuner))), None)


def excessive_rate(train: "TrainSection", tuner: "TunerSection") -> str | None:
    """Return which learning rate is larger than its optimizer can bear, None when none is."""
    if train.is_own_optimizer():
        return None
    limit = train.kind().largest_rate
    rates: dict[str, float | None] = {
        "train.learning_rate": train.learning_rate,
        "train.vit_lr": train.vit_lr,
        "train.aligner_lr": train.aligner_lr,
    }
    if tuner.lorap_lr_ratio and train.learning_rate:
        rates["train.learning_rate times tuner.lorap_lr_ratio"] = (
            train.learning_rate * tuner.lorap_lr_ratio
        )
    for name, rate in rates.items():
        if rate is not None and rate > limit:
            return (
                f"{name} is {rate:g}, and with {train.kind().name} anything above {limit:g} "
                "destroys the weights within a few steps; usual are 1e-5 for full training and "
                "1e-4 for tuners"
            )
    return None


def _idle_adam(train: "TrainSection", tuner: "TunerSection") -> str | None:
    fields = type(train).model_fields
    kind = train.kind()
    reads, chosen = kind.reads, f"optim {kind.name}"
    if train.is_own_optimizer():
        reads, chosen = (), f"optimizer {train.optimizer}"
    for name in ("adam_beta1", "adam_beta2", "adam_epsilon"):
        if getattr(train, name) != fields[name].default and name not in reads:
            return f"train.{name} does nothing with train.{chosen}; remove it"
    return None


def _plug_in(train: "TrainSection", tuner: "TunerSection") -> str | None:
    implied: dict[str, tuple[bool, str]] = {
        "galore": (tuner.use_galore, "tuner.use_galore"),
        "lorap": (tuner.lorap_lr_ratio is not None, "tuner.lorap_lr_ratio"),
        "multimodal": (
            train.vit_lr is not None or train.aligner_lr is not None,
            "train.vit_lr or train.aligner_lr",
        ),
    }
    chosen = train.optimizer
    if chosen in implied and not implied[chosen][0]:
        return f"train.optimizer {chosen} does nothing without {implied[chosen][1]}"
    if train.is_own_optimizer():
        # It is given their groups, each with its rate.
        implied = {"galore": implied["galore"]}
    if chosen == "muon":
        # Its updates are scaled to the size of Adam's, and so the towers' rates suit it.
        implied.pop("multimodal")
    if chosen is not None:
        clash = [named for name, (is_set, named) in implied.items() if is_set and name != chosen]
        if clash:
            return f"train.optimizer {chosen} does not go with {clash[0]}; remove one of them"
    return None


def _lorap(train: "TrainSection", tuner: "TunerSection") -> str | None:
    if tuner.lorap_lr_ratio is not None and tuner.train_type not in _WITH_A_AND_B:
        return (
            f"tuner.lorap_lr_ratio is about LoRA's matrices A and B, and train_type is "
            f"{tuner.train_type}; remove it, or train with lora"
        )
    return None


def _galore(train: "TrainSection", tuner: "TunerSection") -> str | None:
    if not tuner.use_galore:
        return None
    if tuner.train_type != "full":
        return (
            f"tuner.use_galore projects gradients of whole matrices, and train_type "
            f"{tuner.train_type} trains small ones; set train_type: full, or remove it"
        )
    allowed = _QUANTIZED_GALORE if tuner.galore_quantization else _BELOW_GALORE
    if train.optim is not None and train.optim not in allowed:
        return (
            f"train.optim {train.optim} can't step in GaLore's projection"
            + (" with galore_quantization" if tuner.galore_quantization else "")
            + f"; choose one of {', '.join(allowed)}"
        )
    return None


def _lisa(train: "TrainSection", tuner: "TunerSection") -> str | None:
    if not tuner.lisa_activated_layers:
        return None
    if tuner.train_type != "full":
        return (
            f"tuner.lisa_activated_layers is for full training, and train_type is "
            f"{tuner.train_type}; set train_type: full, or remove it"
        )
    if tuner.use_galore:
        return "tuner.use_galore and tuner.lisa_activated_layers each save the memory; choose one"
    if train.kind().schedule_free:
        return (
            f"train.optim {train.kind().name} averages the weights of all steps, and LISA trains "
            "blocks in turns; choose another optimizer"
        )
    return None


def _schedule(train: "TrainSection", tuner: "TunerSection") -> str | None:
    if train.kind().schedule_free and not train.adam_beta1:
        return "train.adam_beta1 is 0, and schedule-free training averages by it; raise it"
    if train.kind().schedule_free and train.lr_scheduler_type not in _FLAT_SCHEDULES:
        return (
            f"train.optim {train.kind().name} replaces a falling learning rate, and "
            f"train.lr_scheduler_type is {train.lr_scheduler_type}; set it to "
            f"{' or '.join(_FLAT_SCHEDULES)}"
        )
    return None


def _spread(train: "TrainSection", tuner: "TunerSection") -> str | None:
    if train.fsdp is None and train.deepspeed is None:
        return None
    if train.deepspeed is not None and train.kind().schedule_free:
        return (
            f"train.optim {train.kind().name} moves the weights between steps, and with "
            "train.deepspeed only its engine does; take adamw_torch"
        )
    found = needs_whole_weights(train, tuner)
    return found and (
        f"{found} works on whole weights, and with train.fsdp or train.deepspeed each process has "
        "a part of them; leave that out, or take adamw_torch"
    )


def needs_whole_weights(train: "TrainSection", tuner: "TunerSection") -> str | None:
    """Return the first setting that works on whole weights, or chooses them anew in training."""
    whole = {
        f"train.optim {train.kind().name}": train.kind().whole_weights,
        f"train.optimizer {train.optimizer}": train.optimizer in ("muon", "galore")
        or train.is_own_optimizer(),
        "tuner.use_galore": tuner.use_galore,
        "tuner.lisa_activated_layers": tuner.lisa_activated_layers > 0,
        "tuner.train_type adalora": tuner.train_type == "adalora",
    }
    return next((name for name, is_set in whole.items() if is_set), None)


def optimization_checks(train: "TrainSection", tuner: "TunerSection") -> None:
    """Refuse sections that can't train together.

    Raises:
        ValueError: why they can't.
    """
    problem = optimization_conflict(train, tuner) or excessive_rate(train, tuner)
    if problem:
        raise ValueError(problem)


def plain(settings: dict[str, Any] | None) -> str | None:
    """Return settings as transformers' arguments take them: `a=1,b=2`."""
    return ",".join(f"{name}={value}" for name, value in settings.items()) if settings else None
