"""`swift run`: the road as a Prefect flow, from one command, with nothing to start by hand."""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

from flows.environment import prepare_environment, server_url
from flows.local_api import LocalApi, local_api
from swiftcore.cli.options import Parser, add_recipe, loaded_recipe, print_json
from swiftcore.errors import Cancelled

logger = logging.getLogger(__name__)


def run_command(argv: Sequence[str]) -> int:
    """Run a recipe as a Prefect flow and print what came of it."""
    parser = Parser(
        "swift run",
        "Run a recipe from raw rows to a served model. What exists and verifies is reused.",
        epilog="swift plan says first what would run.",
    )
    add_recipe(parser)
    options = parser.parse_args(list(argv))
    overrides = list(loaded_recipe(options).overrides)  # wrong recipes fail before Prefect starts
    summary = run_flow(options.recipe, overrides)
    if options.json:
        print_json(summary)
    else:
        from flows.outcome import print_outcome

        print_outcome(summary)
    return 0


def run_flow(recipe: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run the road flow and return its summary.

    Uses the Prefect server of PREFECT_API_URL or of the active profile; without one, a local API is
    started for the length of the run.

    Raises:
        SwiftError: what stopped the flow.
        Cancelled: Ctrl-C, SIGTERM, or a cancellation in Prefect.
    """
    prepare_environment()
    home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
    with local_api(home) if server_url() is None else nullcontext() as api, _api_url(api):
        return _run(recipe, list(overrides), api)


@contextmanager
def _api_url(api: LocalApi | None) -> Iterator[None]:
    if api is None:
        yield
        return
    os.environ["PREFECT_API_URL"] = api.url
    try:
        yield
    finally:
        del os.environ["PREFECT_API_URL"]


def _run(recipe: Path | str, overrides: list[str], api: LocalApi | None) -> dict[str, Any]:
    # MLflow's import takes a second or two that the server's start would otherwise wait alone.
    threading.Thread(target=_import_mlflow, daemon=True).start()
    from prefect.exceptions import Abort, TerminationSignal

    from flows.road import road

    if api is not None:
        api.wait()
    begun: list[UUID] = []

    def remember(flow: Any, flow_run: Any, state: Any) -> None:
        begun.append(flow_run.id)

    try:
        return road.with_options(on_running=[remember])(str(recipe), overrides)
    except (KeyboardInterrupt, TerminationSignal, Abort) as err:
        _note_cancellation(begun)
        raise Cancelled(
            "The run was stopped on request.",
            found="an interrupt, a termination signal or a cancellation in Prefect",
            do="run the same command again: finished steps are reused, training resumes",
        ) from err


def _note_cancellation(runs: list[UUID]) -> None:
    """Show runs that somebody stopped as cancelled; Prefect calls them crashed, or does nothing."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled as CancelledState

    stopped = CancelledState(message="stopped on request (Ctrl-C or SIGTERM)")
    try:
        with get_client(sync_client=True) as client:
            for run in runs:
                client.set_flow_run_state(run, stopped, force=True)
    except Exception as error:  # the run was stopped, whether its server hears of it or not
        logger.warning("Prefect's server does not hear that the run was stopped: %s", error)


def _import_mlflow() -> None:
    import mlflow

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
