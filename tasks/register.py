"""The register task: the candidate that the recipe serves becomes a version in MLflow."""

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from swiftcore.artifacts import Artifact
from swiftcore.evaluation.gate import champion_summary
from swiftcore.stages import Source
from swiftcore.stages.contract import input_path
from swiftcore.stages.deploy import ServedModel, read_report, served_model
from tasks.handles import Handle, open_artifact
from tasks.journey import Journey
from tasks.lineage_tags import base_tags, code_tags, data_revision
from tasks.registry import Registry
from tasks.running import is_transient


@task(
    name="register",
    task_run_name="register {journey}",
    cache_policy=NO_CACHE,  # what is registered is MLflow's to say, and registering is idempotent
    retries=2,
    retry_delay_seconds=[2, 15],
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
)
def register(journey: Journey, report: Handle, *models: Handle | None) -> dict[str, str]:
    """Verify the served candidate's files and register them, once a fingerprint, as challenger."""
    trip = journey.trip
    model = candidate(journey)
    measured = open_artifact(report, trip.store)
    tags = lineage(journey, model, measured)
    version = Registry(trip.store).register(
        journey.recipe.deploy.name if journey.recipe.deploy else journey.name,
        model.artifact,
        experiment=journey.name,
        tags=tags,
        run_id=trip.tracker.run_id,
    )
    trip.facts["version"] = version.reference
    trip.facts["candidate"] = model.candidate
    return {"name": version.name, "version": version.version, "reference": version.reference}


def candidate(journey: Journey) -> ServedModel:
    """Return the model that the recipe serves, with its files."""
    made = _made(journey)
    return served_model(journey.trip.road, made, _base_folder(journey, made))


def lineage(journey: Journey, model: ServedModel, report: Artifact) -> dict[str, str]:
    """Return what a version's tags say about where it comes from."""
    road, made = journey.trip.road, _made(journey)
    document = read_report(report)
    summary = champion_summary(document, model.candidate, model.artifact.label)
    dataset = made[f"{journey.name}/ingest"]
    quantize = journey.recipe.quantize if model.candidate == "quantized" else None
    return {
        "pipeline.recipe": journey.name,
        "pipeline.candidate": model.candidate,
        "data.sha256": dataset.digest,
        "data.dvc_rev": data_revision(road),
        "gate.report": report.label,
        "gate.summary": json.dumps(summary),
        "quant.scheme": f"{quantize.quant_method}-{quantize.quant_bits}bit" if quantize else "none",
        **base_tags(road, made),
        **code_tags(),
        **{f"eval.{name}": f"{value:.6g}" for name, value in summary["metrics"].items()},
    }


def _made(journey: Journey) -> dict[str, Artifact]:
    trip = journey.trip
    return {label: open_artifact(handle, trip.store) for label, handle in trip.handles.items()}


def _base_folder(journey: Journey, made: dict[str, Artifact]) -> Path | None:
    inputs: dict[str, Any] = journey.step("train").resolve(made) or {}
    model = inputs.get("model")
    return input_path(model) if isinstance(model, Artifact | Source) else None
