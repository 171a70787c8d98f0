"""The train section: how they are trained."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from swiftcore.recipe.checkpointing import TrainCheckpointing
from swiftcore.recipe.losses import TrainLosses
from swiftcore.recipe.optimization import (
    TrainOptimization,
)
from swiftcore.recipe.sections.base import Section
from swiftcore.recipe.sharding import DeepspeedName, FsdpName, check_sharding, read_settings

Strategy = Literal["no", "steps", "epoch"]
# Rows of a step, at least, when the recipe leaves gradient accumulation open; ms-swift's number.
_DEFAULT_STEP_ROWS = 16


class TrainSection(TrainOptimization, TrainCheckpointing, TrainLosses, Section):
    """How weights are trained."""

    method: Literal["pt", "sft"] = Field(
        default="sft", description="pre-training or supervised tuning"
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="peak rate; default 1e-5 for full, 1e-4 otherwise"
    )
    num_train_epochs: float = Field(default=3.0, gt=0, description="passes over the training rows")
    max_steps: int = Field(
        default=-1, description="optimizer steps; replaces num_train_epochs when > 0"
    )
    per_device_train_batch_size: int = Field(default=1, ge=1, description="rows a step and process")
    per_device_eval_batch_size: int = Field(default=1, ge=1, description="rows an evaluation step")
    gradient_accumulation_steps: int | None = Field(
        default=None, ge=1, description="default: as many as make a batch of at least 16 rows"
    )
    data_parallel_size: int | None = Field(
        default=None,
        ge=1,
        description="processes per_device_train_batch_size is counted for; default: those that run",
    )
    deepspeed: Annotated[DeepspeedName | dict[str, Any] | None, BeforeValidator(read_settings)] = (
        Field(
            default=None,
            description="zero0 to zero3, zero2_offload, zero3_offload, or DeepSpeed's JSON file",
        )
    )
    zero_hpz_partition_size: int | None = Field(
        default=None,
        ge=1,
        description="ZeRO++: processes that keep the weights among them, as those of a machine",
    )
    fsdp: Annotated[FsdpName | dict[str, Any] | None, BeforeValidator(read_settings)] = Field(
        default=None,
        description="fsdp2, or its settings or their JSON file: weights and optimizer spread out",
    )
    sequence_parallel_size: int = Field(
        default=1, ge=1, description="processes that share the tokens of each sequence (Ulysses)"
    )
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW weight decay")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW beta1")
    adam_beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW beta2")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="AdamW epsilon")
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="gradient clipping; 0 switches it off"
    )
    lr_scheduler_type: str = Field(
        default="cosine", description="schedule, as transformers names it"
    )
    lr_scheduler_kwargs: dict[str, Any] | None = Field(
        default=None, description="schedule arguments"
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, le=1, description="share of steps spent warming up"
    )
    group_by_length: bool = Field(
        default=False, description="batch rows of similar length together"
    )
    padding_free: bool = Field(
        default=False, description="put the rows of a batch side by side instead of padding them"
    )
    packing: bool = Field(
        default=False, description="make each row of a batch a sequence filled with whole rows"
    )
    packing_length: int | None = Field(
        default=None,
        ge=1,
        description="tokens of a packed sequence; default: template.max_length",
    )
    packing_strategy: Literal["binpack", "sequential"] | None = Field(
        default=None,
        description="binpack: best fit over all rows, the default; sequential: in their order",
    )
    fold_lora: bool = Field(
        default=True, description="compute LoRA and its frozen layer as one product where possible"
    )
    label_logits: bool = Field(
        default=True, description="compute logits of label tokens alone, a chunk at a time"
    )
    loss_normalization: Literal["tokens", "weights"] = Field(
        default="tokens",
        description="divide a step's weighted loss by its label tokens, or by the sum of weights",
    )
    loss_type: str | None = Field(
        default=None, description="loss of the task type, where it has several"
    )
    metric: str | None = Field(
        default=None, description="figures of an evaluation; default: all of the task type"
    )
    infonce_temperature: float = Field(
        default=0.1, gt=0, description="infonce: divisor of the similarities"
    )
    infonce_use_batch: bool = Field(
        default=True, description="infonce: documents of the batch's other rows are negatives too"
    )
    infonce_hard_negatives: int | None = Field(
        default=None,
        ge=1,
        description="infonce: negatives of each row, the first ones or repeated; default: its own",
    )
    infonce_mask_fake_negative: bool = Field(
        default=False, description="infonce: leave out negatives that look like positives"
    )
    infonce_fake_neg_margin: float = Field(
        default=0.1,
        ge=0,
        description="infonce: how much likelier than the positive such a negative is",
    )
    infonce_include_qq: bool = Field(
        default=False, description="infonce: other queries are negatives of a query"
    )
    infonce_include_dd: bool = Field(
        default=False, description="infonce: other rows' documents are negatives of a positive"
    )
    listwise_reranker_temperature: float = Field(
        default=1.0, gt=0, description="listwise_reranker: divisor of the scores"
    )
    listwise_reranker_min_group_size: int = Field(
        default=2, ge=2, description="listwise_reranker: fewest documents of a list that counts"
    )
    generative_reranker_positive_token: str = Field(
        default="yes", description="generative_reranker: token of a document that fits"
    )
    generative_reranker_negative_token: str = Field(
        default="no", description="generative_reranker: token of one that does not"
    )
    train_dataloader_shuffle: bool = Field(default=True, description="shuffle rows each epoch")
    gradient_checkpointing: bool = Field(
        default=True, description="recompute activations to save memory"
    )
    neftune_noise_alpha: float = Field(
        default=0.0, ge=0, description="NEFTune embedding noise; 0 is off"
    )
    seed: int = Field(default=42, description="seed of initialisation, dropout and row order")
    logging_steps: int = Field(default=5, ge=1, description="steps between metric lines")
    logging_first_step: bool = Field(default=True, description="log the first step too")
    eval_strategy: Strategy | None = Field(default=None, description="default: as save_strategy")
    eval_steps: int | None = Field(default=None, ge=1, description="default: as save_steps")
    save_strategy: Strategy = Field(default="steps", description="when checkpoints are written")
    save_steps: int = Field(default=500, ge=1, description="steps between checkpoints")
    save_total_limit: int | None = Field(default=None, ge=1, description="checkpoints to keep")

    @model_validator(mode="after")
    def _sharding_is_known(self) -> "TrainSection":
        check_sharding(self.fsdp, self.deepspeed, self.zero_hpz_partition_size)
        return self

    def rows_a_step(self, num_processes: int) -> int:
        """Return the rows of an optimizer step when they are counted for so many processes."""
        rows = self.per_device_train_batch_size * num_processes
        steps = self.gradient_accumulation_steps
        return rows * (math.ceil(_DEFAULT_STEP_ROWS / rows) if steps is None else steps)

    @model_validator(mode="after")
    def _batches_make_sense(self) -> "TrainSection":
        for name in ("packing_length", "packing_strategy"):
            if getattr(self, name) is not None and not self.packing:
                raise ValueError(f"train.{name} does nothing without train.packing")
        if self.group_by_length and (self.packing or self.padding_free):
            raise ValueError(
                "train.group_by_length saves padding, and there is none with train.packing or "
                "train.padding_free; switch one of them off"
            )
        if self.neftune_noise_alpha and (self.packing or self.padding_free):
            raise ValueError(
                "train.neftune_noise_alpha scales its noise by the length of a sequence, which is "
                "not a row's with train.packing or train.padding_free; switch one of them off"
            )
        if self.group_by_length and not self.train_dataloader_shuffle:
            raise ValueError(
                "train.group_by_length shuffles rows; switch it or "
                "train.train_dataloader_shuffle: false off"
            )
        return self
