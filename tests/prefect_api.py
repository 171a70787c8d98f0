"""A real Prefect API for tests, one a session, with its database in a temporary folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.made_once import made_once


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory, empty_prefect: Path) -> Iterator[str]:
    """The address of a running Prefect API; flows called in this process report to it."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from flows.local_api import local_api

    home = tmp_path_factory.mktemp("prefect") / "home"
    shutil.copytree(empty_prefect, home)
    with local_api(home) as api:
        api.wait()
        with temporary_settings({PREFECT_API_URL: api.url, PREFECT_HOME: home}):
            yield api.url


def task_states(flow_run_id: str | UUID) -> dict[str, str]:
    """Return the state names of a flow run's tasks, once Prefect has recorded them all."""
    return {run.name: run.state_name for run in _task_runs(flow_run_id)}


def latest_flow_run(name: str = "road"):
    """Return the newest run of a flow, of the API in use."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[name])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=1,
        )[0]


def _task_runs(flow_run_id: str | UUID) -> list:
    import time

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    deadline = time.monotonic() + 20
    runs: list = []
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
            runs = client.read_task_runs(flow_run_filter=wanted)
            if runs and all(run.state and run.state.is_final() for run in runs):
                break
            time.sleep(0.2)  # task states reach the database through the event stream
    return runs


@pytest.fixture(scope="session")
def empty_prefect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's folder after a first start; copying it saves a server six seconds of migrations."""
    from flows.local_api import local_api

    def migrate(folder: Path) -> None:
        with local_api(folder) as api:
            api.wait()

    return made_once(tmp_path_factory, "empty-prefect", migrate)


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; copying it saves each test ten seconds of migrations."""
    from swiftcore.artifacts import Store
    from tasks.sink import MlflowSink

    def migrate(folder: Path) -> None:
        sink = MlflowSink(Store(folder / "store").root)
        assert sink.client.search_runs(["0"]) == []

    return made_once(tmp_path_factory, "empty-mlflow", migrate) / "mlflow.db"
