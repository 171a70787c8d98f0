"""Scratch: a base model with random weights and, unless one is given, its own tokenizer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.recipe import Recipe
from swiftcore.stages.contract import Stage, StageRun


def _config(recipe: Recipe) -> dict[str, Any]:
    assert recipe.model.scratch is not None
    return {"scratch": section_config(recipe.model.scratch, exclude={"tokenizer"})}


def _run(run: StageRun) -> Produced:
    from swiftcore.models import build_scratch, model_facts

    spec = run.recipe.model.scratch
    assert spec is not None
    dataset = run.inputs.get("dataset")
    texts = _texts(dataset) if dataset is not None else None
    build_scratch(spec, run.area.out, texts=texts)
    facts = model_facts(run.area.out)
    return Produced(metrics={"parameters": float(facts["parameters"])}, facts=facts)


def _texts(dataset: Path) -> Iterator[str]:
    from swiftcore.data import load_rows

    for row in load_rows(dataset, "train"):
        messages: Any = row["messages"]
        yield from (str(message.get("content") or "") for message in messages)


SCRATCH = Stage("scratch", 1, _config, _run)
