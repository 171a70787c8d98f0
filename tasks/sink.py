"""Applies spooled events to an MLflow tracking server or database."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.spool import Event, EventRejected, MlflowAway

RUN_KEY_TAG = "swift.run_key"
_AWAY_CODES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


def tracking_uri(store_root: Path) -> str:
    """Return MLFLOW_TRACKING_URI when it is set, else a SQLite file beside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default_database(store_root)}"


def default_database(store_root: Path) -> Path:
    """Return the SQLite file of a store that has no tracking server."""
    return store_root.absolute().parent / "mlflow.db"


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn MLflow's many ways to say "away" or "refused" into two.

    Raises:
        MlflowAway: the server or database does not answer.
        EventRejected: it answers, and refuses.
    """
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except (requests.exceptions.RequestException, OperationalError, ConnectionError) as err:
        raise MlflowAway(str(err)) from err
    except MlflowException as err:
        # Connection failures and 5xx answers carry these codes, with the address in the text.
        if err.error_code in (
            "INTERNAL_ERROR",
            "TEMPORARILY_UNAVAILABLE",
            "REQUEST_LIMIT_EXCEEDED",
        ):
            raise MlflowAway(str(err)) from err
        raise EventRejected(str(err)) from err


class MlflowSink:
    """A tracking store that events are sent to; connects at the first event."""

    def __init__(self, store_root: Path) -> None:
        self._store_root = store_root
        self.uri = tracking_uri(store_root)
        self._client: Any = None
        self._experiments: dict[str, str] = {}

    @property
    def client(self) -> Any:
        """Return the MlflowClient, made on first use because mlflow takes a second to import."""
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            # MLflow's own limits add up to minutes; a training run must not wait for them.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
            with _one_creator(self.uri, self._store_root):
                from mlflow import MlflowClient

                client = MlflowClient(tracking_uri=self.uri)
                client.search_experiments(max_results=1)
            self._client = client
        return self._client

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, made when it does not exist."""
        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                self._experiments[name] = self.client.create_experiment(
                    name, artifact_location=self._artifact_location(name)
                )
            else:
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def send(self, event: Event, runs: dict[str, str]) -> None:
        """Apply one event; see `tasks.spool.Sink`."""
        with translated():
            if event["op"] == "start":
                runs[event["run"]] = self._start(event, runs)
                return
            run_id = runs.get(event["run"])
            if run_id is None:
                raise EventRejected("its run was never started")
            getattr(self, f"_{event['op']}")(event, run_id)

    def _start(self, event: Event, runs: dict[str, str]) -> str:
        experiment = self.experiment(event["experiment"])
        query = f"tags.`{RUN_KEY_TAG}` = '{event['run']}'"
        known = self.client.search_runs([experiment], query, max_results=1)
        if known:
            return known[0].info.run_id
        tags = {RUN_KEY_TAG: event["run"], **event["tags"]}
        if event["parent"]:
            tags["mlflow.parentRunId"] = runs[event["parent"]]
        run = self.client.create_run(
            experiment, start_time=event["time"], tags=tags, run_name=event["name"]
        )
        return run.info.run_id

    def _metrics(self, event: Event, run_id: str) -> None:
        from mlflow.entities import Metric

        points = [Metric(name, value, time, step) for name, value, time, step in event["points"]]
        self.client.log_batch(run_id, metrics=points)

    def _params(self, event: Event, run_id: str) -> None:
        from mlflow.entities import Param

        self.client.log_batch(run_id, params=[Param(k, v) for k, v in event["values"].items()])

    def _tags(self, event: Event, run_id: str) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in event["values"].items()])

    def _text(self, event: Event, run_id: str) -> None:
        self.client.log_text(run_id, event["text"], event["file"])

    def _files(self, event: Event, run_id: str) -> None:
        missing = [path for path in event["paths"] if not Path(path).is_file()]
        if missing:
            raise EventRejected(f"no longer there: {', '.join(missing)}")
        for path in event["paths"]:
            self.client.log_artifact(run_id, path, event["folder"])

    def _datasets(self, event: Event, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                # MLflow holds 36 characters of a digest; the tag data.sha256 has all of it.
                Dataset(item["name"], item["digest"][:36], "local", item["source"]),
                [InputTag("mlflow.data.context", item["context"])],
            )
            for item in event["items"]
        ]
        self.client.log_inputs(run_id, inputs)

    def _end(self, event: Event, run_id: str) -> None:
        self.client.set_terminated(run_id, status=event["status"], end_time=event["time"])

    def _artifact_location(self, experiment: str) -> str | None:
        """Keep files beside our own database; a server has its own place for them."""
        if os.environ.get("MLFLOW_TRACKING_URI"):
            return None
        folder = default_database(self._store_root).parent / "mlartifacts" / experiment
        return folder.as_uri()


@contextlib.contextmanager
def _one_creator(uri: str, store_root: Path) -> Iterator[None]:
    """Let one process at a time create the SQLite file: its migrations do not expect company."""
    if not uri.startswith("sqlite:"):
        yield
        return
    store_root.mkdir(parents=True, exist_ok=True)
    with (store_root.parent / ".mlflow.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
