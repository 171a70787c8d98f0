"""The whole recipe."""

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from swiftcore.recipe.optimization import (
    optimization_checks,
)
from swiftcore.recipe.sections.base import Name
from swiftcore.recipe.sections.data import DataSection
from swiftcore.recipe.sections.model import ModelSection
from swiftcore.recipe.sections.quantize import QuantizeSection
from swiftcore.recipe.sections.results import (
    DeploySection,
    EvaluateSection,
    MergeSection,
)
from swiftcore.recipe.sections.template import TemplateSection
from swiftcore.recipe.sections.train import TrainSection
from swiftcore.recipe.sections.tuner import TunerSection
from swiftcore.recipe.tasks import check_task
from swiftcore.recipe.token_sharing import check_token_sharing


class Recipe(BaseModel):
    """One runnable thing: every section that is present is a stage that runs."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    name: Name = Field(description="name of the recipe")
    model: ModelSection
    data: DataSection
    template: TemplateSection = Field(default_factory=TemplateSection)
    tuner: TunerSection = Field(default_factory=TunerSection)
    train: TrainSection = Field(default_factory=TrainSection)
    merge: MergeSection | None = None
    quantize: QuantizeSection | None = None
    evaluate: EvaluateSection | None = None
    deploy: DeploySection | None = None

    @model_validator(mode="after")
    def _gradients_become_updates(self) -> "Recipe":
        optimization_checks(self.train, self.tuner)
        return self

    @model_validator(mode="after")
    def _adapters_are_trained(self) -> "Recipe":
        if self.model.adapters and self.train.resume_from_checkpoint is not None:
            raise ValueError(
                "model.adapters does nothing beside train.resume_from_checkpoint, whose weights "
                "take its place; give one of them"
            )
        if self.model.adapters and self.tuner.train_type == "full":
            raise ValueError(
                "tuner.train_type full trains no adapter; merge model.adapters into the model "
                "first, in a recipe with `merge: {}` that model.model names as recipe:PATH"
            )
        return self

    @model_validator(mode="after")
    def _quantized_weights_stay(self) -> "Recipe":
        if self.model.quant_bits is not None and self.tuner.train_type == "full":
            raise ValueError(
                f"tuner.train_type full trains the weights that model.quant_bits "
                f"{self.model.quant_bits} holds frozen; use train_type lora, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _quantized_models_answer_here(self) -> "Recipe":
        if self.quantize is None or self.evaluate is None or self.quantize.is_read_here:
            return self
        raise ValueError(
            f"evaluate can't load quantize.quant_format {self.quantize.quant_format}, which "
            "transformers reads with gptqmodel only; use compressed-tensors, or leave evaluate out "
            "(the quantize stage measures the recovery in gptqmodel's environment)"
        )

    @model_validator(mode="after")
    def _sections_fit_the_task(self) -> "Recipe":
        check_task(self)
        check_token_sharing(self)
        return self

    @model_validator(mode="after")
    def _rows_fit_packed_sequences(self) -> "Recipe":
        if self.train.enable_channel_loss and len(self.data.cached_dataset) > 1:
            raise ValueError("train.enable_channel_loss can't tell rows of joined datasets apart")
        length, limit = self.train.packing_length, self.template.max_length
        if not self.train.packing:
            return self
        if length is None and limit is None:
            raise ValueError("train.packing needs train.packing_length or template.max_length")
        if length is not None and limit is not None and length < limit:
            raise ValueError(
                f"train.packing_length {length} is less than template.max_length {limit}, and rows "
                "are kept whole; lower template.max_length as well"
            )
        return self
