"""The flow around stages: what is cached, what is retried, and what a person sees."""

import logging
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from swiftcore.artifacts import Produced
from swiftcore.errors import DataError, TransientError
from swiftcore.recipe import load_recipe
from swiftcore.stages import run_steps
from tests.prefect_api import latest_flow_run, task_states
from tests.small_road import SmallRoad

STAGES = ["ingest", "scratch", "template", "train"]


@pytest.fixture
def small(tmp_path, monkeypatch, prefect_api, empty_mlflow) -> SmallRoad:
    """A small road whose flow runs in this process."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = SmallRoad(tmp_path)
    monkeypatch.setattr("tasks.departure.build_road", made.build)
    return made


def run(small: SmallRoad, *overrides: str) -> dict:
    from flows.road import road

    return road(str(small.recipe), list(overrides))


def states() -> dict[str, str]:
    found = task_states(latest_flow_run().id)
    return {name.split()[0]: state for name, state in found.items()}


def test_second_run_is_cached(small):
    first = run(small)
    assert small.ran == STAGES
    assert [step["reused"] for step in first["steps"]] == [False] * 4
    second = run(small)
    assert small.ran == STAGES
    assert [step["reused"] for step in second["steps"]] == [True] * 4
    assert states() == dict.fromkeys(STAGES, "Cached")
    assert [s["fingerprint"] for s in first["steps"]] == [s["fingerprint"] for s in second["steps"]]


def test_override_runs_only_what_it_changes(small):
    run(small)
    run(small, "train.seed=7")
    assert small.ran == [*STAGES, "train"]
    assert states() == {**dict.fromkeys(STAGES[:3], "Cached"), "train": "Completed"}


def test_altered_artifact_is_never_returned_from_cache(small):
    made = run(small)["steps"][1]["path"]
    file = Path(made) / "made.txt"
    before = file.stat()
    file.write_text(file.read_text().replace("scratch", "scratcH"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    small.ran.clear()
    summary = run(small)
    assert small.ran == ["scratch"]
    assert "made.txt" in summary["steps"][1]["reason"]
    assert states()["scratch"] == "Completed"


def test_vanished_artifact_is_never_returned_from_cache(small):
    shutil.rmtree(run(small)["steps"][3]["path"])
    small.ran.clear()
    run(small)
    assert small.ran == ["train"]


def test_stage_made_by_another_door_is_cached_in_prefect(small):
    loaded = load_recipe(small.recipe)
    made = run_steps(small.build(loaded, small.store).steps, small.store, loaded.runtime)
    small.ran.clear()
    summary = run(small)
    assert small.ran == []
    assert states() == dict.fromkeys(STAGES, "Cached")
    assert {s["fingerprint"] for s in summary["steps"]} == {a.fingerprint for a in made.values()}


def test_transient_error_is_retried(small):
    def fails_once(stage_run):
        if small.ran.count("train") == 1:
            raise TransientError("the hub is busy")

    small.bodies["train"] = fails_once
    summary = run(small)
    assert small.ran == [*STAGES, "train"]
    assert summary["steps"][3]["reused"] is False


def test_bad_data_is_not_retried_and_fails_the_flow_with_its_block(small, caplog):
    def refuse(stage_run):
        raise DataError("no row is left", where="rows.jsonl", do="add rows")

    small.bodies["template"] = refuse
    with caplog.at_level(logging.INFO), pytest.raises(DataError, match="no row is left"):
        run(small)
    assert small.ran == ["ingest", "scratch", "template"]
    ended = latest_flow_run()
    assert ended.state_name == "Failed"
    assert "no row is left" in ended.state.message
    text = "\n".join(caplog.handler.format(r) for r in caplog.records if "prefect" in r.name)
    assert "Traceback" not in text
    assert text.count("do:       add rows") == 1


def test_run_card_says_what_was_reused_and_what_ran(small):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        ArtifactFilterKey,
    )

    run(small)
    run(small, "train.seed=8")
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(
            key=ArtifactFilterKey(any_=["run-card"]),
            flow_run_id=ArtifactFilterFlowRunId(any_=[latest_flow_run().id]),
        )
        (card,) = client.read_artifacts(artifact_filter=wanted)
    assert "| small/ingest | reused | unchanged |" in card.data
    assert "| small/train | ran |" in card.data


def test_progress_is_an_artifact_in_prefect(small):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    def works(stage_run):
        stage_run.progress.update(1, 4, "a quarter")
        return Produced()

    small.bodies["train"] = works
    run(small)
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["progress-train"]))
        bars = client.read_artifacts(artifact_filter=wanted)
    mine = [bar for bar in bars if bar.flow_run_id == latest_flow_run().id]
    assert [bar.data for bar in mine] == [100.0]


def test_data_card_is_an_artifact_in_prefect(small):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    def works(stage_run):
        (stage_run.area.out / "card.md").write_text("# Dataset\n")
        return Produced()

    small.bodies["ingest"] = works
    run(small)
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["data-card-small"]))
        cards = client.read_artifacts(artifact_filter=wanted)
    assert "# Dataset" in [card.data.strip() for card in cards]


def test_cancelling_in_prefect_stops_a_step_without_a_worker(small, monkeypatch):
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Abort
    from prefect.states import Cancelled

    monkeypatch.setattr("tasks.running._ASK_EVERY_SECONDS", 0.2)
    started = threading.Event()

    def never_ends(stage_run):
        started.set()
        for tick in range(300):
            stage_run.progress.update(tick, 300, "working")
            time.sleep(0.1)

    def cancel():
        started.wait(30)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(latest_flow_run().id, Cancelled(), force=True)

    small.bodies["train"] = never_ends
    helper = threading.Thread(target=cancel_in_context(cancel))
    helper.start()
    begun = time.monotonic()
    with pytest.raises(Abort):
        run(small)
    helper.join()
    assert time.monotonic() - begun < 25
    assert not list(small.store.root.glob("train/*"))
    assert latest_flow_run().state_name == "Cancelled"


def cancel_in_context(function):
    """Give a thread the Prefect settings of the test."""
    from contextvars import copy_context

    context = copy_context()
    return lambda: context.run(function)
