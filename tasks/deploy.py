"""The deploy task: the gate, the endpoint, and then the champion alias."""

import json
from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from swiftcore.errors import GateRefused
from swiftcore.stages.deploy import deploy_model, judge
from tasks.handles import Handle, open_artifact
from tasks.journey import Journey
from tasks.register import candidate
from tasks.registry import Registry, Version
from tasks.running import is_transient


@task(
    name="deploy",
    task_run_name="deploy {journey}",
    cache_policy=NO_CACHE,  # an endpoint that was stopped must start again; an equal one is kept
    retries=2,
    retry_delay_seconds=[2, 15],
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
)
def deploy(journey: Journey, version: dict[str, str], report: Handle) -> dict[str, Any]:
    """Let the gate decide, switch the endpoint to the new version, and make it the champion.

    Raises:
        GateRefused: the version stays the challenger, and what was served is still served.
    """
    trip = journey.trip
    registry = Registry(trip.store)
    ours = registry.version(version["name"], version["version"])
    model, measured = candidate(journey), open_artifact(report, trip.store)
    rival = champion_of(registry, ours)
    decision = judge(trip.road, model.candidate, measured, rival)
    trip.facts["gate"] = decision.as_dict()
    try:
        decision.raise_if_refused()
        release = deploy_model(
            trip.road,
            model,
            measured,
            trip.store,
            trip.runtime,
            version=ours.version,
            champion=rival,
        )
    except GateRefused:
        registry.tag(ours, {"gate.decision": "refused"})
        raise
    registry.tag(ours, {"gate.decision": "passed"})
    registry.promote(ours.name, ours.version, reason="the gate passed")
    trip.facts["endpoint"] = {key: str(value) for key, value in asdict(release).items()}
    return {"url": release.url, "version": ours.reference}


def champion_of(registry: Registry, challenger: Version) -> dict[str, Any] | None:
    """Return the evaluation summary of the version in service, unless that is the challenger."""
    champion = registry.by_alias(challenger.name, "champion")
    if champion is None or champion.version == challenger.version:
        return None
    summary = champion.tags.get("gate.summary")
    return json.loads(summary) if summary else None
