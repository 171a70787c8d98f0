"""Extend: a base model with new tokens or stretched positions, which all later steps start from."""

from typing import Any

from swiftcore.artifacts import Produced
from swiftcore.recipe import ModelSection, Recipe
from swiftcore.stages.contract import Stage, StageRun


def is_extended(section: ModelSection) -> bool:
    """Tell whether a recipe adds anything to its base model."""
    return bool(section.new_special_tokens or section.rope_scaling is not None)


def _config(recipe: Recipe) -> dict[str, Any]:
    from swiftcore.models.extension import listed_tokens, rope_extension

    model = recipe.model
    config: dict[str, Any] = {}
    if model.new_special_tokens:
        config["tokens"] = list(listed_tokens(model.new_special_tokens))
    if model.rope_scaling is not None:
        config["rope"] = rope_extension(model.rope_scaling)
        config["max_model_len"] = model.max_model_len
    return config


def _run(run: StageRun) -> Produced:
    from swiftcore.models.extension import Extension, extend_model

    config = _config(run.recipe)
    extension = Extension(
        tuple(config.get("tokens", ())), config.get("rope", {}), config.get("max_model_len")
    )
    return Produced(metrics=extend_model(run.inputs["model"], run.area.out, extension))


EXTEND = Stage("extend", 1, _config, _run)
