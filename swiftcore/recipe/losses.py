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

    @model_validator(mode="after")
    def _losses_make_sense(self) -> Self:
        train: Any = self
        if self.enable_dft_loss and train.method == "pt":
            raise ValueError("train.enable_dft_loss is for supervised tuning, not for method pt")
        return self
