"""The deployments of prefect.yaml on a real Prefect server, with a real worker."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.roads import REPO, tiny_recipes

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

pytestmark = pytest.mark.road


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, finished_store: Path, empty_prefect: Path
) -> Path:
    """A project folder with our deployments, and the tiny base recipe, whose steps are finished."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "flows").symlink_to(REPO / "flows")
    shutil.copy(REPO / "prefect.yaml", folder)
    tiny_recipes(folder)
    shutil.copytree(finished_store, folder / "store")
    shutil.copytree(empty_prefect, folder / "prefect")
    return folder


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[dict[str, str]]:
    """A Prefect server on a free port; its value is the environment that points at it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(project / "prefect"),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PYTHONPATH": str(REPO),
        "PWD": str(project),
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    log = (project / "server.log").open("w")
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, cwd=project, start_new_session=True
    )
    environment["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    try:
        _until(lambda: _healthy(environment["PREFECT_API_URL"]), 180, "the server to start")
        yield environment
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module")
def client(project: Path, server: dict[str, str]) -> Iterator["SyncPrefectClient"]:
    """A client of the server, to which the deployments of prefect.yaml have been applied."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}),
        get_client(sync_client=True) as connected,
    ):
        connected.create_work_pool(WorkPoolCreate(name="swift", type="process"))
        prefect(server, project, "deploy", "--all")
        yield connected


def test_cron_deployment_is_scheduled_and_a_worker_executes_a_run(project, server, client):
    nightly = client.read_deployment_by_name("road/nightly")
    assert [schedule.active for schedule in nightly.schedules] == [False]
    assert nightly.pull_steps is not None

    assert scheduled_runs(client, nightly) == []
    _activate(client, nightly)
    _until(lambda: scheduled_runs(client, nightly), 60, "scheduled runs")

    parameters = {"recipe": str(project / "recipes/tiny_base.yaml")}
    run = client.create_flow_run_from_deployment(nightly.id, parameters=parameters)
    prefect(server, project, "worker", "start", "--pool", "swift", "--run-once")
    _until(lambda: client.read_flow_run(run.id).state.is_final(), 180, "the run to end")
    ended = client.read_flow_run(run.id)
    assert ended.state_name == "Completed", ended.state.message
    assert (project / "mlflow.db").is_file()


def test_event_starts_the_deployment_that_waits_for_it(project, server, client):
    waiting = client.read_deployment_by_name("road/on-new-data")
    assert runs_of(client, waiting) == []
    prefect(server, project, "event", "emit", "swift.data.changed", "--resource-id", "swift.data.x")
    _until(lambda: runs_of(client, waiting), 60, "a run of the deployment")
    (run,) = runs_of(client, waiting)
    assert run.parameters == {"recipe": "recipes/demo.yaml"}
    assert run.created_by.type == "AUTOMATION"


def runs_of(client, deployment) -> list:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    return client.read_flow_runs(deployment_filter=wanted)


def scheduled_runs(client, deployment) -> list:
    runs = runs_of(client, deployment)
    return [run for run in runs if run.auto_scheduled and run.state_name == "Scheduled"]


def _activate(client, deployment) -> None:
    """Make the nightly schedule active; tomorrow's runs are enough to prove that it fires."""
    schedule = deployment.schedules[0]
    client.update_deployment_schedule(deployment.id, schedule.id, active=True)


def prefect(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    """Run one `prefect` command and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _healthy(api_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.3)
