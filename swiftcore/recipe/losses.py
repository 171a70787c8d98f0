"""Fields of the train section about the loss and what is told of it."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator


class TrainLosses(BaseModel):
    """What the loss of a token is, and the figures logged beside the loss."""

    enable_dft_loss: bool = Field(
        default=False, description="weigh each token's loss by its own probability (DFT)"
    )
    router_aux_loss_coef: float = Field(
        default=0.0, ge=0, description="weight of the balance loss of expert models"
    )
    enable_channel_loss: bool = Field(
        default=False, description="log the loss of each `channel` of the rows apart"
    )
    acc_strategy: Literal["token", "seq"] | None = Field(
        default=None,
        description="log the share of label tokens, or of whole rows, predicted right; unset: none",
    )

    external_plugins: list[str] = Field(
        default_factory=list, description="Python files that register losses, metrics and callbacks"
    )
    callbacks: list[str] = Field(
        default_factory=list, description="callbacks that those files register"
    )
    predict_with_generate: bool = Field(
        default=False, description="evaluations also answer rows: eval_rouge-1, -2, -l and bleu-4"
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="predict_with_generate: longest answer; default: 64 tokens"
    )
    temperature: float | None = Field(
        default=None, ge=0, description="predict_with_generate: default 0, which is greedy"
    )

    @model_validator(mode="after")
    def _losses_make_sense(self) -> Self:
        train: Any = self
        if self.enable_dft_loss and train.loss_type is not None:
            raise ValueError("train.enable_dft_loss and train.loss_type both name the loss")
        if self.enable_dft_loss and train.method == "pt":
            raise ValueError("train.enable_dft_loss is for supervised tuning, not for method pt")
        for name in ("max_new_tokens", "temperature"):
            if getattr(self, name) is not None and not self.predict_with_generate:
                raise ValueError(f"train.{name} does nothing without train.predict_with_generate")
        if self.predict_with_generate and train.fsdp is not None:
            raise ValueError("train.predict_with_generate needs whole weights; remove fsdp")
        if self.callbacks and not self.external_plugins:
            raise ValueError("train.callbacks are registered by files of train.external_plugins")
        if self.predict_with_generate and train.method == "pt":
            raise ValueError("train.predict_with_generate needs prompts, which method pt has not")
        return self
