"""The road from raw rows to a served model.

    swift run recipes/demo.yaml

Each line calls one task; a task whose artifact exists and verifies is not run again.
"""

from pathlib import Path
from typing import Any

from prefect import flow

from tasks.departure import set_out
from tasks.deploy import deploy
from tasks.evaluate import evaluate
from tasks.extend import extend
from tasks.fold import fold
from tasks.handles import Handle
from tasks.ingest import ingest
from tasks.join import join
from tasks.journey import Journey
from tasks.merge import merge
from tasks.quantize import quantize
from tasks.register import register
from tasks.run_card import summarize
from tasks.scratch import scratch
from tasks.template import template
from tasks.train import train

RESULTS = Path(".swift/results")


@flow(
    name="road",
    flow_run_name="road {recipe}",
    persist_result=True,
    result_storage=RESULTS,
    result_serializer="json",
)
def road(recipe: str = "recipes/demo.yaml", overrides: list[str] | None = None) -> dict[str, Any]:
    """Run a recipe.

    Args:
        recipe: path of a recipe file.
        overrides: `section.field=value` texts.

    Returns:
        What happened to each step, the candidates' figures, and where everything is.
    """
    with set_out(recipe, overrides) as journey:
        base = base_model(below) if (below := journey.base()) else None
        dataset = ingest(journey) if journey.has("ingest") else None
        model = starting_model(journey, dataset, base)
        encoded = encode(journey, dataset, model)
        trained = train(journey, encoded, model)
        merged = merge(journey, model, trained, encoded) if journey.has("merge") else None
        quantized = (
            quantize(journey, merged or trained, encoded) if journey.has("quantize") else None
        )
        if journey.has("evaluate"):
            report = evaluate(journey, dataset, encoded, model, trained, merged, quantized)
            if journey.recipe.deploy:
                version = register(journey, report, trained, merged, quantized)
                deploy(journey, version, report)
        return summarize(journey.trip)


@flow(
    name="base model",
    flow_run_name="base model {journey}",
    validate_parameters=False,
    persist_result=True,
    result_storage=RESULTS,
    result_serializer="json",
)
def base_model(journey: Journey) -> Handle:
    """Make the model that another recipe starts from, by that model's own recipe."""
    base = base_model(below) if (below := journey.base()) else None
    dataset = ingest(journey) if journey.has("ingest") else None
    model = starting_model(journey, dataset, base)
    encoded = encode(journey, dataset, model)
    trained = train(journey, encoded, model)
    return merge(journey, model, trained, encoded) if journey.has("merge") else trained


def starting_model(journey: Journey, dataset: Handle | None, base: Handle | None) -> Handle | None:
    """Build the base model where it is asked for, and add to it what the recipe adds."""
    model = scratch(journey, dataset) if journey.has("scratch") else base
    model = fold(journey, model) if journey.has("fold") else model
    return extend(journey, model) if journey.has("extend") else model


def encode(journey: Journey, dataset: Handle | None, model: Handle | None) -> Handle | None:
    """Encode the rows, or join what was encoded before; one such dataset is an input itself."""
    if journey.has("template"):
        return template(journey, dataset, model)
    return join(journey) if journey.has("join") else None
