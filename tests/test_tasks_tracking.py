"""What MLflow hears of a run: everything, in order, once, even when it was away."""

import json
import shutil
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from swiftcore.recipe import load_recipe
from tasks.sink import MlflowSink, tracking_uri
from tasks.spool import EventRejected, MlflowAway, Spool
from tasks.system_figures import SystemFigures
from tasks.tracking import FlowTracker, replay_spool, spool_folder
from tests.small_road import SmallRoad


class Listener:
    """A tracking store that can be away, refuse, or die between accepting and being noted."""

    def __init__(self) -> None:
        self.heard: list[dict] = []
        self.away = False
        self.refuses: set[str] = set()

    def send(self, event: dict, runs: dict[str, str]) -> None:
        if self.away:
            raise MlflowAway("nobody answers")
        if event["op"] in self.refuses:
            raise EventRejected("never")
        if event["op"] == "start":
            runs[event["run"]] = f"id-{event['run']}"
        self.heard.append(event)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool" / "a.jsonl")


def point(step: int) -> dict:
    return {"op": "metrics", "run": "a", "points": [["loss", 1.0 / step, 1000 + step, step]]}


def steps_heard(listener: Listener) -> list[int]:
    return [p[3] for e in listener.heard if e["op"] == "metrics" for p in e["points"]]


def test_events_are_kept_while_mlflow_is_away_and_sent_in_order(spool):
    listener = Listener()
    listener.away = True
    spool.append({"op": "start", "run": "a"})
    for step in (1, 2, 3):
        spool.append(point(step))
    with pytest.raises(MlflowAway):
        spool.forward(listener)
    assert listener.heard == []
    listener.away = False
    spool.forward(listener)
    spool.forward(listener)
    assert [event["op"] for event in listener.heard] == ["start", "metrics"]
    assert steps_heard(listener) == [1, 2, 3]
    assert spool.all_sent()


def test_the_next_process_goes_on_where_the_last_one_stopped(spool):
    listener = Listener()
    spool.append({"op": "start", "run": "a"})
    spool.append(point(1))
    spool.forward(listener)
    spool.append(point(2))
    spool.close()
    again = Spool(spool.path)
    again.forward(listener)
    assert steps_heard(listener) == [1, 2]
    assert again.sent.runs == {"a": "id-a"}


def test_half_a_line_of_a_killed_process_is_never_sent(spool):
    spool.append({"op": "start", "run": "a"})
    spool.close()
    with spool.path.open("ab") as stream:
        stream.write(b'{"op": "metrics", "ru')
    listener = Listener()
    again = Spool(spool.path)
    again.forward(listener)
    again.mend()
    again.append(point(1))
    again.forward(listener)
    assert [event["op"] for event in listener.heard] == ["start", "metrics"]


def test_what_mlflow_refuses_does_not_hold_up_the_rest(spool):
    listener = Listener()
    listener.refuses = {"text"}
    spool.append({"op": "text", "run": "a"})
    spool.append(point(1))
    assert spool.forward(listener) == ["text of a: never"]
    assert steps_heard(listener) == [1]


def test_spool_of_a_living_flow_is_left_to_it(spool):
    assert list(Spool.orphans(spool.path.parent)) == []
    spool.close()
    assert [found.path for found in Spool.orphans(spool.path.parent)] == [spool.path]


def tracker_of(small: SmallRoad, key: str) -> FlowTracker:
    loaded = load_recipe(small.recipe)
    tracker = FlowTracker(small.store, key, "small")
    tracker.start_flow("a flow", loaded, {"pipeline.recipe": "small"})
    return tracker


def train_a_little(tracker: FlowTracker) -> None:
    tracker.start_stage("small/train", {"pipeline.stage": "train"})
    for step in (1, 2, 3):
        tracker.metrics_line("small/train", line(step))


def line(step: int) -> dict:
    return {"step": step, "loss": 3.0 / step, "time": f"2026-11-21T10:00:0{step}.000+00:00"}


def loss_history(client, run_id: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run_id, "loss"))


CURVE = [(1, 3.0), (2, 1.5), (3, 1.0)]


@pytest.fixture
def small(tmp_path, monkeypatch, empty_mlflow) -> SmallRoad:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return SmallRoad(tmp_path)


def test_flow_is_a_parent_run_with_a_child_for_its_stage(small):
    tracker = tracker_of(small, "flow-1")
    train_a_little(tracker)
    tracker.fail_stage("small/train", "stopped", "KILLED")
    tracker.end_flow("FAILED")
    client = MlflowSink(small.store.root).client
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    parent, child = by_name["a flow"], by_name["small/train"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.status, child.info.status) == ("FAILED", "KILLED")
    assert loss_history(client, child.info.run_id) == CURVE
    assert parent.data.params["train.seed"] == "42"
    assert "recipe.yaml" in [file.path for file in client.list_artifacts(parent.info.run_id)]
    assert list(spool_folder(small.store).glob("*")) == []


def test_lines_heard_again_after_a_resume_are_logged_once(small):
    tracker = tracker_of(small, "flow-2")
    train_a_little(tracker)
    train_a_little(tracker)
    tracker.forward(now=True)
    client = tracker.sink.client
    assert loss_history(client, tracker.child_id("small/train")) == CURVE


def test_what_the_machine_does_is_told_by_the_names_of_mlflows_page(small):
    tracker = tracker_of(small, "flow-system")
    tracker.start_stage("small/train", {})
    figures = SystemFigures(every_seconds=60)
    first = figures.sample_if_due()
    assert first["system/system_memory_usage_megabytes"] > 100
    assert 0 < first["system/disk_usage_percentage"] <= 100
    assert {"system/cpu_utilization_percentage", "system/network_receive_megabytes"} <= set(first)
    assert figures.sample_if_due() == {}
    tracker.system_figures("small/train", first, figures.num_samples)
    tracker.forward(now=True)
    run = tracker.child_id("small/train")
    (kept,) = tracker.sink.client.get_metric_history(run, "system/system_memory_usage_megabytes")
    assert (kept.step, kept.value) == (1, first["system/system_memory_usage_megabytes"])


def test_crash_between_sending_and_noting_repeats_nothing(small):
    tracker = tracker_of(small, "flow-3")
    train_a_little(tracker)
    tracker.forward(now=True)
    tracker._spool.close()
    path = spool_folder(small.store) / "flow-3.sent.json"
    assert json.loads(path.read_text())["offset"] > 0
    path.unlink()
    assert replay_spool(small.store) == 1
    client = MlflowSink(small.store.root).client
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["a flow", "small/train"]
    assert {run.info.status for run in runs} == {"KILLED"}
    child = next(run for run in runs if run.info.run_name == "small/train")
    assert loss_history(client, child.info.run_id) == CURVE


def test_mlflow_tracking_uri_of_the_user_is_respected(small, monkeypatch):
    assert tracking_uri(small.store.root).startswith("sqlite:///")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(small.store.root) == "http://127.0.0.1:1"


def test_metrics_are_replayed_exactly_once_after_mlflow_was_away(small, monkeypatch):
    port = _free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = tracker_of(small, "flow-4")
    train_a_little(tracker)
    tracker.end_flow("FINISHED")
    assert tracker.run_id is None
    with pytest.raises(MlflowAway):
        replay_spool(small.store)
    with _server(port, small.store.root.parent):
        assert replay_spool(small.store) == 1
        assert replay_spool(small.store) == 0
        client = MlflowSink(small.store.root).client
        runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
        child = next(run for run in runs if run.info.run_name == "small/train")
        assert loss_history(client, child.info.run_id) == CURVE
        assert len(runs) == 2
    assert list(spool_folder(small.store).glob("*")) == []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _server(port: int, folder: Path):
    """MLflow's own REST application on a port, in a thread, over the database in a folder."""
    from mlflow.server import app, constants
    from werkzeug.serving import make_server

    with pytest.MonkeyPatch.context() as patch:
        database = f"sqlite:///{folder}/mlflow.db"
        patch.setenv(constants.BACKEND_STORE_URI_ENV_VAR, database)
        patch.setenv(constants.ARTIFACT_ROOT_ENV_VAR, str(folder / "artifacts"))
        server = make_server("127.0.0.1", port, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
