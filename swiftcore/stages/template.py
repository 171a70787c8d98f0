"""Template: rows become tokens and labels, with a proof against the model's own template."""

from typing import Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.recipe import Recipe, TemplateSection
from swiftcore.stages.contract import Stage, StageRun

_MAP_FILES = (".yaml", ".yml", ".json")


def _config(recipe: Recipe) -> dict[str, Any]:
    section = recipe.template
    config = section_config(section, exclude={"custom_template"})
    # What a file holds is identity, not where it lies.
    if any(part.endswith(_MAP_FILES) for part in section.loss_scale.split("+")):
        from swiftcore.template.loss_scale import parse_loss_scale

        config["loss_scale"] = parse_loss_scale(section.loss_scale).settings
    registered = _registered(section) if section.custom_template else {}
    task = recipe.model.task
    # How vectors are pooled changes no token.
    scored = {} if task.is_text else {"task": section_config(task, exclude={"pooling"})}
    channels = {"channels": True} if recipe.train.enable_channel_loss else {}
    config = {"template": config, "method": recipe.train.method}
    return config | registered | scored | channels


def _registered(section: TemplateSection) -> dict[str, Any]:
    """Return what the recipe's own template says."""
    from dataclasses import asdict

    from swiftcore.template import chosen_custom

    definition = chosen_custom(section.template, section.custom_template)
    return {"registered": asdict(definition)} if definition is not None else {}


def _run(run: StageRun) -> Produced:
    from swiftcore.data import Pool
    from swiftcore.models import load_tokenizer, model_facts
    from swiftcore.template import encode_dataset

    folder = run.inputs["tokenizer"]
    facts = model_facts(folder)
    if not run.recipe.model.task.is_text:
        from swiftcore.template.tasks.dataset import encode_samples

        report = encode_samples(
            run.recipe.template,
            run.recipe.model.task,
            run.inputs["dataset"],
            load_tokenizer(folder),
            run.area.out,
            model_type=facts["model_type"],
            max_model_length=facts["max_position_embeddings"],
            progress=run.progress,
        )
        return Produced(metrics=report.metrics(), facts={"template": report.settings})
    report = encode_dataset(
        run.recipe.template,
        run.inputs["dataset"],
        load_tokenizer(folder),
        run.area.out,
        method=run.recipe.train.method,
        model_type=facts["model_type"],
        max_model_length=facts["max_position_embeddings"],
        tokenizer_dir=folder,
        pool=Pool(run.runtime.data_processes(), run.runtime.ray_address),
        progress=run.progress,
    )
    if run.recipe.train.enable_channel_loss:
        from swiftcore.template.channels import write_channels

        write_channels(run.inputs["dataset"], run.area.out)
    return Produced(metrics=report.metrics(), facts={"template": report.settings})


TEMPLATE = Stage("template", 2, _config, _run, measured=("card.html",))
