"""Recipes: what to make (`Recipe` and its sections) and where to make it (`Runtime`)."""

from swiftcore.recipe.loading import LoadedRecipe, build_recipe, load_recipe
from swiftcore.recipe.runtime import Runtime
from swiftcore.recipe.sections import (
    DataSection,
    DeploySection,
    EvaluateSection,
    Gate,
    MergeSection,
    ModelSection,
    QuantizeSection,
    Recipe,
    ScratchModel,
    TemplateSection,
    TrainSection,
    TunerSection,
)

__all__ = [
    "DataSection",
    "DeploySection",
    "EvaluateSection",
    "Gate",
    "LoadedRecipe",
    "MergeSection",
    "ModelSection",
    "QuantizeSection",
    "Recipe",
    "Runtime",
    "ScratchModel",
    "TemplateSection",
    "TrainSection",
    "TunerSection",
    "build_recipe",
    "load_recipe",
]
