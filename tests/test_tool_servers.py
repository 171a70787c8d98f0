"""Servers of tools in environments of their own: command lines, and a tiny tool on bad days."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from swiftcore.backends import ToolServer, start_tool_server
from swiftcore.backends.tool_failure import why_ended
from swiftcore.errors import BackendFailed, BackendMissing, ModelMissing, SwiftError, UsageError
from swiftcore.recipe import Runtime
from tests.fake_serving_tool import fake_order, fake_runtime, fake_tool, install_fake_tool
from tests.made_once import made_once
from tests.making import REPO
from tests.test_backends import Heard, ended


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fake tool, installed once a run."""
    return made_once(tmp_path_factory, "fake-serving-tool", install_fake_tool)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A folder that passes for a model's."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return folder


def start(tools: Path, model_dir: Path, behaviour: str = "serves", **options) -> ToolServer:
    key_flag = options.pop("key_flag", False)
    order = fake_order(model_dir, behaviour, **options.pop("order", {}))
    return start_tool_server(
        order,
        log=model_dir.parent / "logs/tool.log",
        runtime=fake_runtime(tools),
        timeout_seconds=options.pop("timeout_seconds", 20),
        tool=fake_tool(tools, key_flag=key_flag),
        **options,
    )


def pids_in(log: str) -> list[int]:
    """Return the processes that the fake tool named last."""
    return [int(word) for word in log.rpartition("pids ")[2].splitlines()[0].split()]


def stopped(server: ToolServer, seconds: float = 5) -> bool:
    """Tell whether a server has ended by itself, waiting for it a little."""
    deadline = time.monotonic() + seconds
    while server.running and time.monotonic() < deadline:
        time.sleep(0.02)
    return not server.running


def seen(server: ToolServer) -> dict:
    return httpx.get(server.url + "/seen", headers=server.headers, trust_env=False).json()


def test_a_server_answers_with_its_key_only_and_leaves_no_process(
    tools: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SWIFTCORE_API_KEY", "of the endpoint")
    monkeypatch.setenv("HF_TOKEN", "of a hub")
    with start(tools, model_dir, order={"name": "tiny"}) as server:
        assert server.running
        assert server.healthy()
        models = server.url + "/v1/models"
        assert httpx.get(models, trust_env=False).status_code == 401
        listed = httpx.get(models, headers=server.headers, trust_env=False).json()
        assert [row["id"] for row in listed["data"]] == [server.model] == ["tiny"]
        shown = seen(server)
        assert server.key not in " ".join(shown["argv"])
        variables = shown["variables"]
        assert variables["FAKE_KEY"] == server.key
        assert variables["HF_HUB_OFFLINE"] == variables["DO_NOT_TRACK"] == "1"
        assert variables["OMP_NUM_THREADS"] == variables["FAKE_VARIABLE"].replace("set", "1")
        assert not {"SWIFTCORE_API_KEY", "HF_TOKEN"} & variables.keys()
        assert Path(variables["VLLM_CACHE_ROOT"]).is_relative_to(tools / "root")
        pids = pids_in(server.printed())
        assert len(pids) == 3
        assert server.printed().startswith("fake_server 1.0 on cpu: fake_server --port")
    assert not server.running
    assert not server.healthy()
    assert [ended(pid) for pid in pids] == [True] * 3
    server.stop()


def test_a_key_that_a_tool_takes_as_an_argument_is_in_no_process_list(tools: Path, model_dir: Path):
    with start(tools, model_dir, key_flag=True) as server:
        shown = seen(server)
        assert server.key not in " ".join(shown["argv"])
        for pid in pids_in(server.printed()):
            assert server.key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        with pytest.raises(UsageError, match="only at its start"):
            server.load_adapter("late", model_dir)


def test_adapters_come_and_go_while_the_server_runs(tools: Path, model_dir: Path):
    with start(tools, model_dir, order={"adapters": {"first": model_dir}}) as server:

        def names() -> list[str]:
            models = httpx.get(server.url + "/v1/models", headers=server.headers, trust_env=False)
            return [row["id"] for row in models.json()["data"]]

        assert names() == ["model", "first"]
        server.load_adapter("second", model_dir)
        assert names() == ["model", "first", "second"]
        server.unload_adapter("first")
        assert names() == ["model", "second"]
        with pytest.raises(UsageError, match="no such adapter"):
            server.load_adapter("third", model_dir / "nothing")
        with pytest.raises(UsageError, match="no such adapter"):
            server.unload_adapter("first")
        server.stop()
        with pytest.raises(BackendFailed, match="does not answer"):
            server.load_adapter("third", model_dir)


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        ("dies", BackendFailed, "KeyError: 'no such layer'"),
        ("killed", BackendFailed, "SIGKILL"),
        ("says_out_of_memory", BackendFailed, "has not enough memory"),
        ("says_unsupported", BackendFailed, r"can't serve this kind of model"),
        ("says_import_error", BackendFailed, "swift env check"),
        ("port_always_taken", BackendFailed, "can't have its port"),
        ("no_such_behaviour", BackendFailed, "KeyError: 'no_such_behaviour'"),
    ],
)
def test_a_server_that_ends_at_its_start_is_one_clear_error(
    tools: Path, model_dir: Path, behaviour: str, kind: type[SwiftError], said: str
):
    with pytest.raises(kind, match=said) as caught:
        start(tools, model_dir, behaviour)
    assert caught.value.exit_code == 5
    assert caught.value.do
    assert "tool.log" in str(caught.value.where)


# What vLLM 0.32 printed last on such days.
UNKNOWN_FLAG = """
usage: main.py [-h] [-v]
main.py: error: unrecognized arguments: --no-such-flag 1
"""
ODD_MODEL = """
WARNING [system_utils.py:255] This can cause fd limit errors like `OSError: [Errno 24] Too many
ERROR [repo_utils.py:124] Error parsing config for odd: The checkpoint has model type `odd`
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, The checkpoint you are trying to load has model type `odd` but Transformers does \
not recognize this architecture. This could be because of an issue with the checkpoint
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
LONG = """
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (100000) is greater than the derived max_model_len (256)
"""
NO_ROOM = """
ImportError: an optional module
(VllmWorker-0) ERROR [multiproc_executor.py:953] ValueError: Available memory on node 0 \
(17.11/22.09 GiB) on startup is less than desired CPU memory utilization (1.0, 22.09 GiB).
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


@pytest.mark.parametrize(
    ("log", "kind", "message", "found"),
    [
        (UNKNOWN_FLAG, UsageError, "does not take these settings", "--no-such-flag"),
        (ODD_MODEL, BackendFailed, "can't serve this kind of model", "model type `odd`"),
        (LONG, UsageError, "not for this model", "greater than the derived"),
        (NO_ROOM, BackendFailed, "has not enough memory", "17.11/22.09"),
        ("nothing to see\n", BackendFailed, "ended by itself", "nothing to see"),
        ("", BackendFailed, "ended by itself", "nothing was printed"),
    ],
)
def test_the_root_cause_is_found_in_the_log(log: str, kind, message: str, found: str):
    error = why_ended("vLLM", 1, Path("tool.log"), log)
    assert type(error) is kind
    assert message in error.message
    assert found in str(error.found)
    assert "Engine core" not in str(error.found)
    assert "Errno 24" not in str(error.found)
    assert "was killed" in why_ended("vLLM", -9, Path("tool.log"), log).message


def test_a_server_that_never_answers_is_stopped_at_the_limit(tools: Path, model_dir: Path):
    heard = Heard()
    with pytest.raises(BackendFailed, match="no answer after 1 s") as caught:
        start(tools, model_dir, "never", timeout_seconds=1, progress=heard)
    assert "start_timeout_seconds" in str(caught.value.do)
    assert heard.texts[-1] == "starting Fake: loading weights"
    log = (model_dir.parent / "logs/tool.log").read_text()
    assert [ended(pid) for pid in pids_in(log)] == [True, True]


def test_a_port_that_another_program_took_is_changed(tools: Path, model_dir: Path):
    with start(tools, model_dir, "port_taken") as server:
        assert server.healthy()


def test_a_stranger_on_the_port_is_not_taken_for_the_server(tools: Path, model_dir: Path):
    with start(tools, model_dir) as stranger, start(tools, model_dir) as server:
        server.url, server.port = stranger.url, stranger.port
        assert httpx.get(server.url + "/health", trust_env=False).status_code == 200
        assert not server.healthy()


def test_one_that_does_not_listen_to_sigterm_is_killed(tools: Path, model_dir: Path):
    server = start(tools, model_dir, "stubborn")
    pids = pids_in(server.printed())
    server.stop(grace_seconds=0.3)
    assert [ended(pid) for pid in pids] == [True] * 3


def test_a_server_that_dies_later_says_why(tools: Path, model_dir: Path):
    with start(tools, model_dir) as server:
        tool, *others = pids_in(server.printed())
        os.kill(tool, signal.SIGKILL)
        assert stopped(server)
        assert "SIGKILL" in str(server.why_ended())
        assert [ended(pid) for pid in others] == [True, True]


@pytest.mark.parametrize("killed", [False, True])
def test_shared_memory_goes_with_the_server(tools: Path, model_dir: Path, killed: bool):
    with start(tools, model_dir, "shares") as server:
        name = server.printed().partition("shm ")[2].split()[0]
        memory = Path("/dev/shm") / name
        assert memory.exists()
        if killed:
            os.kill(pids_in(server.printed())[0], signal.SIGKILL)
            assert stopped(server)
    assert not memory.exists()


def test_a_killed_guard_takes_the_server_with_it(tools: Path, model_dir: Path):
    with start(tools, model_dir) as server:
        tool, *_ = pids_in(server.printed())
        os.kill(server.pid, signal.SIGKILL)
        assert ended(tool)
        assert stopped(server)


def test_a_parent_that_is_killed_takes_all_processes_with_it(tools: Path, model_dir: Path):
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tests.test_tool_servers import start\n"
        "server = start(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(server.printed().splitlines()[-1], flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tools), str(model_dir)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = pids_in(parent.stdout.readline())
    assert len(pids) == 3
    parent.kill()
    parent.wait()
    assert [ended(pid) for pid in pids] == [True] * 3


def test_what_is_not_there_is_said_before_anything_starts(tools: Path, tmp_path: Path, model_dir):
    with pytest.raises(ModelMissing, match=r"no config\.json"):
        start(tools, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelMissing, match=r"no \*\.safetensors"):
        start(tools, tmp_path)
    with pytest.raises(BackendMissing, match="swift env install fake_server"):
        start_tool_server(
            fake_order(model_dir),
            log=tmp_path / "log",
            runtime=Runtime(backends_dir=tmp_path / "none"),
            timeout_seconds=1,
            tool=fake_tool(tools),
        )
