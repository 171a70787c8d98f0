"""The beginning and the end of a flow run: read the recipe, tell MLflow, leave a run card."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from swiftcore.artifacts import Store
from swiftcore.errors import RecipeError, SwiftError
from swiftcore.recipe import LoadedRecipe, load_recipe
from swiftcore.stages import build_road
from swiftcore.stages.releases import require_engines
from tasks.journey import Journey, Trip
from tasks.lineage_tags import code_tags
from tasks.log_blocks import show_errors_as_blocks
from tasks.run_card import run_card, summarize
from tasks.spool import MlflowAway
from tasks.tracking import FlowTracker, replay_spool

logger = logging.getLogger("prefect.flow_runs.departure")


@contextmanager
def set_out(recipe: str, overrides: Sequence[str] | None) -> Iterator[Journey]:
    """Open a flow run's journey; close its MLflow run and write its card, however it ends.

    Raises:
        RecipeError: the recipe is wrong.
        DataError: a data file is missing.
        ModelMissing: the base model is missing.
        BackendMissing: a tool that is to answer is not there.
    """
    loaded = load_recipe(recipe, overrides or ())
    if loaded.runtime.log_level != "debug":
        show_errors_as_blocks()
    _refuse_unmeasured(loaded)
    require_engines(loaded.recipe, loaded.runtime)
    store = Store(loaded.runtime.store)
    road = build_road(loaded, store)
    _forward_earlier(store)
    tracker = FlowTracker(store, _flow_key(), loaded.recipe.name)
    tracker.start_flow(flow_run.get_name() or loaded.recipe.name, loaded, _flow_tags(loaded))
    _tag_flow_run(loaded)
    trip = Trip(loaded, road, store, loaded.runtime, tracker)
    status, problem = "KILLED", None
    try:
        yield Journey(trip)
        status = "FINISHED"
    except Exception as err:
        status, problem = "FAILED", err
        raise
    finally:
        _close(trip, status, problem)


def _close(trip: Trip, status: str, problem: Exception | None) -> None:
    """Write the card and end the run; a card is not written on the way out of an interrupt."""
    summary = summarize(trip)
    if isinstance(problem, SwiftError):
        summary["error"] = problem.as_dict()
    card = run_card(summary)
    trip.tracker.flow_text("run_card.md", card)
    trip.tracker.flow_metrics(summary["figures"])
    trip.tracker.flow_tags({f"step.{s['step']}": s["fingerprint"] for s in summary["steps"]})
    trip.tracker.end_flow(status)
    if status == "KILLED":
        return
    create_markdown_artifact(card, key="run-card", description=f"{trip.road.recipe.name}: {status}")
    if summary["mlflow"]["url"]:
        create_link_artifact(summary["mlflow"]["url"], key="mlflow-run", link_text="MLflow run")
    if summary["report"]:
        create_link_artifact(
            f"file://{summary['report']}", key="evaluation-report", link_text="evaluation report"
        )


def _flow_key() -> str:
    return str(flow_run.get_id())


def _flow_tags(loaded: LoadedRecipe) -> dict[str, str]:
    return {
        "pipeline.recipe": loaded.recipe.name,
        "pipeline.recipe_path": str(loaded.path),
        "pipeline.overrides": " ".join(loaded.overrides),
        "prefect.flow_run_id": _flow_key(),
        "prefect.flow_run_name": str(flow_run.get_name()),
        **code_tags(),
    }


def _tag_flow_run(loaded: LoadedRecipe) -> None:
    """Add what people filter by in Prefect's UI to the tags a deployment may have given."""
    recipe = loaded.recipe
    tags = {*flow_run.get_tags(), f"recipe:{recipe.name}", f"method:{recipe.train.method}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(_flow_key()), tags=sorted(tags))


def _forward_earlier(store: Store) -> None:
    try:
        replay_spool(store)
    except MlflowAway:
        # The tracker of this run meets the same silence and says so once.
        return


def _refuse_unmeasured(loaded: LoadedRecipe) -> None:
    if loaded.recipe.deploy is not None and loaded.recipe.evaluate is None:
        raise RecipeError(
            "A model is deployed only when its evaluation passes the gate, and there is none.",
            where=loaded.path,
            found="a deploy section without an evaluate section",
            expected="both, and data.test_dataset",
            do="add `evaluate: {}` and data.test_dataset, or remove the deploy section",
        )
