"""The ingest task."""

import re

from prefect.artifacts import create_markdown_artifact

from tasks.handles import Handle, open_artifact
from tasks.journey import Journey
from tasks.running import run_step, stage_task

_NO_KEY_CHARACTER = re.compile(r"[^a-z0-9]+")


@stage_task
def ingest(journey: Journey) -> Handle:
    """Turn sources into standard rows; every row is kept, quarantined or counted."""
    handle = run_step(journey, "ingest")
    _show_card(journey, handle)
    return handle


def _show_card(journey: Journey, handle: Handle) -> None:
    """Put the data card beside the task in Prefect's UI; MLflow gets it with the other cards."""
    trip = journey.trip
    card = open_artifact(handle, trip.store).path / "card.md"
    if not card.is_file():
        return  # an artifact that was adopted may be without one
    name = handle.step.partition("/")[0]
    key = "data-card-" + _NO_KEY_CHARACTER.sub("-", name.lower()).strip("-")
    create_markdown_artifact(card.read_text(encoding="utf-8"), key=key, description=handle.label)
