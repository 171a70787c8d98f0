"""A body runs once; what it leaves is whole or invisible, whatever happens meanwhile."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftcore.artifacts import Produced, Store, WorkArea, make
from swiftcore.artifacts import make as make_artifact
from swiftcore.errors import StoreFull, TrainingFailed
from tests.making import (
    identity,
    make_demo,
    must_not_run,
    python,
    settle,
    wait_until,
    writes,
)

FINGERPRINT = identity().fingerprint


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def out_folders(store: Store) -> list[Path]:
    return list(store.root.glob("in-progress/*/out-*"))


def test_second_call_reuses_without_running_the_body(store: Store):
    first = make_demo(store)
    second = make(store, identity(), must_not_run)
    assert (first.reused, first.reason) == (False, "new")
    assert (second.reused, second.reason) == (True, "unchanged")
    assert second.artifact == first.artifact
    assert (second.artifact.path / "model.bin").read_text() == "weights"
    assert not list((store.root / "in-progress").iterdir())


def test_same_identity_under_another_name_reuses(store: Store):
    make_demo(store)
    assert make(store, identity(name="renamed"), must_not_run).reused


def test_raised_stage_version_runs_the_body_again(store: Store):
    make_demo(store)
    assert not make(store, identity(version=2), writes("better")).reused


def flip(folder: Path) -> None:
    path = folder / "model.bin"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


DAMAGES = {
    "flipped": (flip, "sha256"),
    "deleted": (lambda folder: (folder / "model.bin").unlink(), "no such file"),
    "truncated": (lambda folder: (folder / "model.bin").write_text("wei"), "3 bytes"),
    "added": (lambda folder: (folder / "more.bin").write_text("x"), "does not name"),
    "record damaged": (lambda folder: (folder / "record.json").write_text("{"), "record"),
    "record altered": (
        lambda folder: (folder / "record.json").write_text(
            (folder / "record.json").read_text().replace("0.5", "0.1")
        ),
        "seal",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_artifact_is_a_miss_with_the_reason_and_is_kept_aside(store: Store, name: str):
    damage, words = DAMAGES[name]
    path = make_demo(store).artifact.path
    if name == "flipped":
        settle(store)  # the digest of the whole file is remembered by now
    damage(path)
    outcome = make_demo(store)
    assert not outcome.reused
    assert words in outcome.reason
    assert outcome.artifact.path == path
    assert (path / "model.bin").read_text() == "weights"
    aside = list((store.root / "damaged").iterdir())
    assert len(aside) == 1
    assert make(store, identity(), must_not_run).reused


def test_record_that_is_gone_makes_the_artifact_invisible(store: Store):
    path = make_demo(store).artifact.path
    (path / "record.json").unlink()
    assert list(store.artifacts()) == []
    assert not make_demo(store).reused


KILLED_BEFORE_RECORD = """
from swiftcore.artifacts import store as stores
stores.write_text_synced = lambda path, text: (
    os.kill(os.getpid(), signal.SIGKILL) if path.name == 'record.json' else path.write_text(text)
)
make(store, identity(), writes())
"""

KILLED_BEFORE_RENAME = """
os.rename = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
make(store, identity(), writes())
"""


@pytest.mark.parametrize("script", [KILLED_BEFORE_RECORD, KILLED_BEFORE_RENAME])
def test_kill_between_outputs_and_publication_leaves_nothing_visible(store: Store, script: str):
    killed = python(script, store.root)
    _, stderr = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, stderr
    assert [path.read_text() for path in store.root.glob("in-progress/*/out-*/model.bin")] == [
        "weights"
    ]
    assert list(store.artifacts()) == []
    assert store.lookup("train", FINGERPRINT).artifact is None
    outcome = make_demo(store, wait_seconds=10)
    assert not outcome.reused
    assert not out_folders(store)


def test_work_survives_a_crash_and_out_does_not(store: Store):
    killed = python(
        "def body(area):\n"
        "    (area.out / 'half.bin').write_text('half')\n"
        "    (area.work / 'checkpoint-1').write_text('state')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "make(store, identity(), body)\n",
        store.root,
    )
    assert killed.wait(timeout=60) == -signal.SIGKILL
    seen: dict[str, list[str]] = {}

    def resumed(area: WorkArea) -> Produced:
        seen["out"] = [path.name for path in area.out.iterdir()]
        seen["work"] = [path.name for path in area.work.iterdir()]
        writes()(area)
        return Produced(resumed_from="checkpoint-1")

    outcome = make(store, identity(), resumed, wait_seconds=10)
    assert seen == {"out": [], "work": ["checkpoint-1"]}
    assert outcome.artifact.record.resumed_from == "checkpoint-1"


def test_two_identical_runs_at_once_run_the_body_once(store: Store, tmp_path: Path):
    script = (
        "def body(area):\n"
        "    with open(sys.argv[2], 'a') as stream: stream.write('ran\\n')\n"
        "    deadline = time.monotonic() + 60\n"
        "    while not os.path.exists(sys.argv[3]) and time.monotonic() < deadline:\n"
        "        time.sleep(0.01)\n"
        "    return writes()(area)\n"
        "def waiting(owner):\n"
        "    open(sys.argv[3], 'w').close()\n"
        "outcome = make(store, identity(), body, on_wait=waiting)\n"
        "print(outcome.reused, outcome.reason)\n"
    )
    ran, somebody_waits = tmp_path / "ran", tmp_path / "waits"
    processes = [python(script, store.root, ran, somebody_waits) for _ in range(2)]
    said = sorted(process.communicate(timeout=90)[0].strip() for process in processes)
    assert ran.read_text() == "ran\n"
    assert said[0] == "False new"
    assert said[1].startswith("True made by process")


def test_waiter_makes_it_when_the_first_maker_is_killed(store: Store):
    first = python("make(store, identity(), lambda area: time.sleep(60))", store.root)
    wait_until(lambda: out_folders(store))
    outcome = make_artifact(
        store,
        identity(),
        writes(),
        wait_seconds=30,
        on_wait=lambda owner: os.kill(owner.pid, signal.SIGKILL),
    )
    first.wait()
    assert not outcome.reused


def test_body_that_raises_publishes_nothing_and_keeps_its_work(store: Store):
    def fails(area: WorkArea) -> Produced:
        writes("half")(area)
        (area.work / "checkpoint").write_text("state")
        raise TrainingFailed("the loss is not finite")

    with pytest.raises(TrainingFailed):
        make(store, identity(), fails)
    assert list(store.artifacts()) == []
    assert [path.name for path in store.root.glob("in-progress/*/work/*")] == ["checkpoint"]
    assert not list((store.root / "leases").iterdir())
    assert not make_demo(store, wait_seconds=0).reused


def test_link_among_the_results_is_refused(store: Store):
    def links(area: WorkArea) -> Produced:
        (area.out / "model.bin").symlink_to("/etc/hostname")
        return Produced()

    with pytest.raises(Exception, match="no file among its results"):
        make(store, identity(), links)
    assert list(store.artifacts()) == []


def test_measured_files_stay_out_of_the_digest_but_are_verified(store: Store):
    def measuring(seconds: str):
        def body(area: WorkArea) -> Produced:
            writes(seconds, "logs/times.json")(area)
            return writes("weights")(area)

        return body

    digests = []
    for seconds in ("1.5", "2.5"):
        made = make(store, identity(), measuring(seconds), measured=["logs/*"])
        digests.append(made.artifact.digest)
        assert [e.path for e in made.artifact.record.files if e.measured] == ["logs/times.json"]
        (made.artifact.path / "logs" / "times.json").write_text("9.9")
    assert digests[0] == digests[1]
    outcome = make(store, identity(), measuring("3.5"), measured=["logs/*"])
    assert not outcome.reused
    assert "logs/times.json" in outcome.reason


def test_required_bytes_refuse_before_the_body_runs(store: Store):
    with pytest.raises(StoreFull, match="needed") as raised:
        make(store, identity(), must_not_run, required_bytes=1 << 60)
    assert raised.value.exit_code == 5
    assert not out_folders(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a small disk can only be mounted by root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class LibraryError(Exception):
    """Some libraries report a full disk as an error of their own, with the text alone."""


def fills_with_an_os_error(area: WorkArea) -> Produced:
    (area.work / "checkpoint").write_text("state")
    (area.out / "model.bin").write_bytes(b"x" * (4 << 20))
    return Produced()


def fills_with_a_library_error(area: WorkArea) -> Produced:
    try:
        return fills_with_an_os_error(area)
    except OSError as err:
        raise LibraryError("I/O error: No space left on device (os error 28)") from err


@pytest.mark.parametrize("fills", [fills_with_an_os_error, fills_with_a_library_error])
def test_full_disk_publishes_nothing_and_gives_the_space_back(small_disk: Path, fills):
    store = Store(small_disk / "store")
    earlier = make(store, identity("ingest"), writes("rows"))
    free = shutil.disk_usage(small_disk).free
    with pytest.raises(StoreFull) as raised:
        make(store, identity(), fills)
    assert raised.value.exit_code == 5
    assert "swift gc" in str(raised.value)
    assert [artifact.record.stage for artifact in store.artifacts()] == ["ingest"]
    store.verify(earlier.artifact, thorough=True)
    assert shutil.disk_usage(small_disk).free > free - 200_000
    assert [path.name for path in store.root.glob("in-progress/*/work/*")] == ["checkpoint"]
    assert not make_demo(store).reused


def fill_up(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while stream.write(b"x" * 4096):
            pass
    assert shutil.disk_usage(ballast.parent).free < 4096


def test_disk_that_is_full_before_the_start_is_reported_the_same_way(small_disk: Path):
    store = Store(small_disk / "store")
    earlier = make(store, identity("ingest"), writes("rows"))
    ballast = small_disk / "ballast"
    fill_up(ballast)
    with pytest.raises(StoreFull):
        make_demo(store)
    assert make(store, identity("ingest"), must_not_run).artifact == earlier.artifact
    ballast.unlink()
    assert not make_demo(store).reused


def test_failed_maker_does_not_remove_the_files_of_the_one_it_waits_for(store: Store, monkeypatch):
    area = store.begin(FINGERPRINT)
    (area.out / "model.bin").write_text("somebody else's")
    monkeypatch.setattr(
        "swiftcore.artifacts.lease.write_text_synced",
        lambda path, text: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(StoreFull):
        make_demo(store)
    assert (area.out / "model.bin").exists()
