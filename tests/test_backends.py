"""Environments of backends and the jobs in them, with a tiny tool in a real environment."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from swiftcore.backends import Environment, Fix, Limits, all_backends, building, run_job
from swiftcore.backends.building import split_lock
from swiftcore.backends.environment import backends_root
from swiftcore.cli import env as env_command
from swiftcore.errors import (
    BackendFailed,
    BackendMissing,
    Cancelled,
    DataError,
    LeaseHeld,
    StoreFull,
    UsageError,
)
from swiftcore.recipe import Runtime
from tests.fake_backend import fake_backend, index_variables, lock_of, write_source
from tests.made_once import made_once
from tests.making import REPO


class Order(BaseModel):
    behaviour: str
    numbers: list[int] = []


class Sum(BaseModel):
    total: int
    tool: str = ""
    swiftcore: bool = False
    stdin: str = ""


class Heard:
    """Progress that keeps what it heard, and may raise at a word."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.texts: list[str] = []
        self.stop_at = stop_at

    def update(self, done: float, total: float | None, text: str) -> None:
        self.texts.append(text)
        if self.stop_at is not None and self.stop_at in text:
            raise Cancelled("stopped by the test")

    def pids(self) -> list[int]:
        return [int(p) for text in self.texts if text.startswith("pids") for p in text.split()[1:]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The fake backend, installed once a run."""
    folder = made_once(tmp_path_factory, "fake-backend", _install_in)
    return Environment(fake_backend(folder / "backend"), folder / "root")


def _install_in(folder: Path) -> None:
    backend = fake_backend(folder / "backend")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in index_variables(backend).items():
            patch.setenv(name, value)
        Environment(backend, folder / "root").install()


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The fake backend where nothing is installed."""
    backend = fake_backend(tmp_path / "backend")
    for name, value in index_variables(backend).items():
        monkeypatch.setenv(name, value)
    return Environment(backend, tmp_path / "root")


def ended(pid: int) -> bool:
    """Tell whether a process is gone, waiting for it a little."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def job(environment: Environment, behaviour: str, folder: Path, **options) -> Sum:
    return run_job(environment, Order(behaviour=behaviour), Sum, folder, **options)


def test_a_job_gets_its_order_tells_progress_and_answers(installed: Environment, tmp_path: Path):
    heard = Heard()
    order = Order(behaviour="add", numbers=[1, 2, 39])
    answer = run_job(installed, order, Sum, tmp_path, progress=heard)
    assert answer.total == 42
    assert heard.texts == ["adding 1", "adding 2", "adding 39"]
    assert (tmp_path / "log.txt").read_text().split("\n")[:2] == ["on stdout", "on stderr"]
    # The tool is that of the environment, which has nothing of ours; and it is asked nothing.
    record = installed.installed
    assert record is not None
    assert record.folder in answer.tool
    assert (answer.swiftcore, answer.stdin) == (False, "")


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        ("crash", BackendFailed, "KeyError: 'no such layer'"),
        ("exit", BackendFailed, "SystemExit: 3"),
        ("killed", BackendFailed, "SIGKILL"),
        ("guard_killed", BackendFailed, "SIGKILL"),
        ("garbage", BackendFailed, "total"),
        ("nothing", BackendFailed, "total"),
        ("half", BackendFailed, "answer.json"),
        ("refuse", DataError, "3 tokens"),
    ],
)
def test_a_job_that_fails_is_one_clear_error(
    installed: Environment, tmp_path: Path, behaviour: str, kind: type[Exception], said: str
):
    with pytest.raises(kind) as caught:
        job(installed, behaviour, tmp_path)
    assert said in str(caught.value)
    assert caught.value.do
    assert caught.value.exit_code == (3 if behaviour == "refuse" else 5)


def test_an_answer_of_an_earlier_attempt_is_not_taken(installed: Environment, tmp_path: Path):
    (tmp_path / "answer.json").write_text('{"total": 7}')
    with pytest.raises(BackendFailed):
        job(installed, "half", tmp_path)


def test_a_tool_leaves_no_process_behind(installed: Environment, tmp_path: Path):
    heard = Heard()
    assert job(installed, "leave_running", tmp_path, progress=heard).total == 0
    assert [ended(pid) for pid in heard.pids()] == [True]


def test_time_and_memory_are_limited(installed: Environment, tmp_path: Path):
    heard = Heard()
    with pytest.raises(BackendFailed, match="time limit"):
        job(installed, "wait", tmp_path, limits=Limits(seconds=0.7), progress=heard)
    assert [ended(pid) for pid in heard.pids()] == [True, True]
    with pytest.raises(BackendFailed, match="memory limit"):
        job(installed, "eat", tmp_path, limits=Limits(memory_bytes=200_000_000))


def test_cancelling_ends_the_tool_and_what_it_started(
    installed: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("swiftcore.backends.jobs._GRACE_SECONDS", 0.3)
    for behaviour in ("wait", "stubborn"):
        heard = Heard(stop_at="pids")
        with pytest.raises(Cancelled):
            job(installed, behaviour, tmp_path, progress=heard)
        assert [ended(pid) for pid in heard.pids()] == [True, True]


def test_a_parent_that_is_killed_takes_the_tool_with_it(installed: Environment, tmp_path: Path):
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from swiftcore.backends import Environment, run_job\n"
        "from tests.fake_backend import fake_backend\n"
        "from tests.test_backends import Order, Sum\n"
        "class Tell:\n"
        "    def update(self, done, total, text): print(text, flush=True)\n"
        "backend = fake_backend(Path(sys.argv[1]))\n"
        "order = Order(behaviour='wait')\n"
        "environment = Environment(backend, Path(sys.argv[2]))\n"
        "run_job(environment, order, Sum, Path(sys.argv[3]), progress=Tell())\n"
    )
    root = installed.backend.folder.parent / "root"
    arguments = [str(installed.backend.folder), str(root), str(tmp_path)]
    parent = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()[1:]]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    assert [ended(pid) for pid in pids] == [True, True]


def test_an_environment_is_made_once_checked_and_removed(fresh: Environment):
    assert fresh.state == "missing"
    with pytest.raises(BackendMissing, match="swift env install fake"), fresh.in_use():
        pass
    record = fresh.install()
    assert fresh.state == "ready"
    assert record.packages["fake-tool"] == record.version == "1.0"
    assert fresh.install() == record
    assert fresh.check() == []
    with fresh.in_use() as python:
        with pytest.raises(LeaseHeld, match="in use"):
            fresh.remove()
        # Who asks for what is there does not wait for those who use it.
        assert fresh.install() == record
        assert python.exists()
        (tool,) = (python.parent.parent / "lib").glob("python*/site-packages/fake_tool.py")
    tool.write_text("import no_such_module\n")
    assert "no_such_module" in fresh.check()[0]
    assert fresh.remove() > 0
    assert fresh.state == "missing"


def test_what_is_half_installed_is_noticed_and_built_again(fresh: Environment):
    record = fresh.install()
    home = Path(fresh.backend.folder).parent / "root" / "fake"
    kept = home / record.folder
    # A power cut between the packages and the record; a folder that someone has emptied.
    (record_file,) = home.glob("*.json")
    record_file.unlink()
    assert fresh.state == "broken"
    again = fresh.install()
    assert not kept.exists()
    (home / again.folder / "bin/python").unlink()
    assert fresh.state == "broken"
    fresh.install()
    assert (fresh.state, fresh.check()) == ("ready", [])
    assert len([path for path in home.iterdir() if path.is_dir()]) == 1


def test_another_lock_is_another_environment(fresh: Environment):
    fresh.install()
    lock = fresh.backend.lock
    lock.write_text(lock.read_text() + "# changed\n")
    root = fresh.backend.folder.parent / "root"
    changed = Environment(replace(fresh.backend, summary="x"), root)
    assert changed.state == "outdated"
    changed.install()
    assert len(list((root / "fake").glob("*.json"))) == 2
    changed.remove()
    assert list((root / "fake").glob("*.json")) == []


def test_who_asks_while_it_is_built_waits_and_has_it(fresh: Environment):
    home = fresh.backend.folder.parent / "root" / "fake"
    home.mkdir(parents=True)
    key = fresh.backend.digest[:12]
    with (home / f"{key}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert fresh.state == "being built"
        records = []
        waiting = threading.Thread(target=lambda: records.append(fresh.install()))
        waiting.start()
        time.sleep(0.2)
        assert records == []
    waiting.join(30)
    assert records == [fresh.installed]


def test_an_index_out_of_reach_is_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lock = "no-such-package-of-ours==1.0\nfake-tool==1.0\n"
    environment = Environment(fake_backend(tmp_path / "b", lock=lock), tmp_path / "root")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(BackendMissing, match="index can't be reached") as caught:
        environment.install()
    assert (tmp_path / "root/fake") in Path(str(caught.value.where)).parents
    assert environment.state == "missing"
    assert [path for path in (tmp_path / "root/fake").iterdir() if path.is_dir()] == []


def test_a_wheel_that_is_not_the_locked_one_is_refused(fresh: Environment):
    lock = fresh.backend.lock
    lock.write_text(f"fake-tool==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(BackendMissing, match=r"(?i)hash"):
        Environment(fresh.backend, fresh.backend.folder.parent / "root").install()


def test_no_room_is_said_before_and_in_the_middle(fresh: Environment, tmp_path: Path):
    big = fake_backend(tmp_path / "big", size_bytes=10**18)
    with pytest.raises(StoreFull, match="MB needed"):
        Environment(big, tmp_path / "r").install()

    def fill_the_disk(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    full = replace(fresh.backend, fixes=(Fix("none", fill_the_disk),))
    environment = Environment(full, tmp_path / "r")
    with pytest.raises(StoreFull, match="nothing of it was kept"):
        environment.install()
    assert environment.state == "missing"


def test_fixes_are_applied_and_are_part_of_the_identity(fresh: Environment, tmp_path: Path):
    def mend(site_packages: Path) -> None:
        (site_packages / "fake_tool.py").write_text("def add(*numbers):\n    return 0\n")

    mended = replace(fresh.backend, fixes=(Fix("adds nothing here", mend),))
    assert mended.digest != fresh.backend.digest
    environment = Environment(mended, tmp_path / "mended")
    order = Order(behaviour="add", numbers=[1])
    answer = run_job(environment, order, Sum, tmp_path / "job", install=True)
    assert answer.total == 0


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_what_is_compiled_is_compiled_as_the_backend_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: str
):
    if installer == "pip":
        monkeypatch.setattr(building, "_uv", lambda: None)
    backend = fake_backend(tmp_path / "backend")
    wheels = backend.folder / "wheels"
    next(wheels.iterdir()).unlink()
    backend.lock.write_text(lock_of(write_source(wheels)))
    for name, value in (index_variables(backend) | {"UV_CACHE_DIR": str(tmp_path / "uv")}).items():
        monkeypatch.setenv(name, value)
    told = replace(backend, build_variables={"FAKE_TOTAL": "77"})
    assert told.digest != backend.digest
    environment = Environment(told, tmp_path / "root")
    order = Order(behaviour="add", numbers=[1])
    assert run_job(environment, order, Sum, tmp_path / "job", install=True).total == 77


def test_pip_does_where_uv_is_not(fresh: Environment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(building, "_uv", lambda: None)
    assert fresh.install().installer == "pip"
    assert fresh.check() == []


def test_a_backend_that_needs_a_gpu_says_so(fresh: Environment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("swiftcore.backends.spec._GPU_FILES", ("/no/such/driver",))
    environment = Environment(replace(fresh.backend, needs_gpu=True), fresh.backend.folder)
    with pytest.raises(BackendMissing, match="needs an NVIDIA GPU"):
        environment.install()


def test_a_lock_is_split_by_its_hashes():
    lock = "# made by\na==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\ntorch==2\n\n"
    assert split_lock(lock) == (["a==1 --hash=sha256:00 --hash=sha256:11"], ["torch==2"])


def test_environments_lie_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("SWIFTCORE_BACKENDS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert backends_root() == tmp_path / "cache/swiftcore/backends"
    monkeypatch.setenv("SWIFTCORE_BACKENDS", str(tmp_path / "mine"))
    assert backends_root() == tmp_path / "mine"
    assert backends_root(Runtime(backends_dir=tmp_path / "run")) == tmp_path / "run"


@pytest.mark.parametrize("backend", all_backends().values(), ids=lambda backend: backend.name)
def test_each_backend_is_complete_and_its_lock_names_no_place(backend):
    lock = backend.lock.read_text()
    assert backend.version
    assert "://" not in lock
    assert "file:" not in lock
    hashed, loose = split_lock(lock)
    assert hashed
    assert {line.partition("==")[0] for line in loose} <= {"torch", "torchvision", "torchaudio"}
    if backend.job_script.exists():
        assert "swiftcore" not in backend.job_script.read_text()
    assert all(fix.reason for fix in backend.fixes)


def test_env_list_and_wrong_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("SWIFTCORE_BACKENDS", str(tmp_path))
    assert env_command.main(["env", "list", "--json"]) == 0
    listed = {row["backend"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["evalscope"]["installed"] == "missing"
    assert listed["evalscope"]["why_not"] == "swift env install evalscope"
    with pytest.raises(UsageError, match="no such backend"):
        env_command.main(["env", "install", "evalscop"])
    with pytest.raises(UsageError, match="Which backend"):
        env_command.main(["env", "check"])
    with pytest.raises(BackendMissing, match="swift env install evalscope"):
        env_command.main(["env", "check", "evalscope"])
    with pytest.raises(BackendMissing, match=f"--backends_dir {tmp_path}/other"):
        env_command.main(["env", "check", "evalscope", "--backends_dir", f"{tmp_path}/other"])
    assert list(tmp_path.iterdir()) == []


def test_an_installation_ends_with_who_asked_for_it(tmp_path: Path):
    program = (
        "import subprocess\nfrom swiftcore.processes import tied_to_this_process\n"
        "subprocess.run(tied_to_this_process(['sh', '-c', 'echo $$; exec sleep 600']))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert ended(pid)
