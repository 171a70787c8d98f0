"""Fixtures that several test files share."""

import gc
import os
import shutil
import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from swiftcore.backends import get_backend, open_environment
from swiftcore.models.quiet import quiet_imports
from tests.made_once import made_once
from tests.prefect_api import empty_mlflow, empty_prefect, prefect_api  # noqa: F401  # fixtures
from tests.roads import swift_here, tiny_recipes
from tests.stub_hub import hub  # noqa: F401  # a fixture

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: the tests that
# send one would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may reach a hub, and no library may report home.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    DO_NOT_TRACK="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    # Models of a few thousand weights: two threads mostly wait for each other.
    OMP_NUM_THREADS="1",
    # Hundreds of processes import the same files: they compile them once.
    PYTHONDONTWRITEBYTECODE="",
)


# Longest first, so that workers that share the suite end together. The second needs nothing that
# the first one makes for others.
LONGEST = [
    "flows_run",
    "gsm8k",
    "bad_days",
    "dvc",
    "docs",
    "training_resume",
    "flows_schedule",
    "flows_road",
    "training_run",
    "tuner_kinds",
    "serving_model",
    "data_pool",
    "models",
    "serving_supervisor",
]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let the workers share the compilation of the test files, which each would do as a whole."""
    worker = getattr(session.config, "workerinput", None)
    if worker is not None and session.config.args == session.config.getini("testpaths"):
        number = int(worker["workerid"].removeprefix("gw"))
        files = sorted(Path(__file__).parent.glob("test_*.py"))
        quiet_imports()
        # pytest shows no warnings of tests that it has not begun to collect: the terminal would.
        with warnings.catch_warnings(action="ignore"):
            for file in files[number :: worker["workercount"]]:
                import_module(file.stem)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    rank = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_collection_finish() -> None:
    """Let the collector leave alone what all tests share: torch's modules, and the tests."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave tests of real backends to `make test-backends`, which installs what they need."""
    names = [str(mark.args[0]) for mark in item.iter_markers("backend")]
    asked = os.environ.get("SWIFTCORE_TEST_BACKENDS", "").split()
    if not set(names) <= set(asked) and "all" not in asked:
        pytest.skip("make test-backends runs it")
    for name in names:
        why_not = get_backend(name).why_not_here()
        if why_not:
            pytest.skip(f"{name} {why_not}")
        open_environment(get_backend(name)).install()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Take back the threads that a run in this process may have asked for in an earlier file."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def finished_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which every stage of the tiny road, from base to evaluation, is finished."""

    def finish(folder: Path) -> None:
        _, recipe = tiny_recipes(folder)
        done = swift_here("stage", "evaluate", recipe, "--out", folder / "out/evaluate")
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "finished-road", finish) / "store"


@pytest.fixture
def tiny_road(tmp_path: Path, finished_store: Path) -> Path:
    """A tiny recipe whose steps are all finished, in a folder of its own."""
    _, recipe = tiny_recipes(tmp_path)
    shutil.copytree(finished_store, tmp_path / "store")
    return recipe
