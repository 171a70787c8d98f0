"""One maker at a time, takeover of the dead, and nobody robbed."""

import json
import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from swiftcore.artifacts import Store, make
from swiftcore.artifacts import lease as leases
from swiftcore.artifacts.lease import Lease, Owner, hold, read_owner
from swiftcore.errors import LeaseHeld, LeaseLost
from tests.making import identity, make_demo, must_not_run, python, wait_until, writes

FINGERPRINT = identity().fingerprint


def write_owner(path: Path, owner: Owner) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(owner)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases" / f"{'a' * 64}.json"


@pytest.fixture
def elsewhere() -> Owner:
    """An owner on another machine, whose process this one can't look up."""
    return replace(Owner.myself(), host="another-host", pid=1)


def test_lease_of_a_killed_owner_is_taken_over_at_once(tmp_path: Path):
    store = Store(tmp_path)
    owner = python(
        "with hold(store.lease_path(sys.argv[2]), wait_seconds=0):\n    time.sleep(60)",
        tmp_path,
        FINGERPRINT,
    )
    wait_until(lambda: read_owner(store.lease_path(FINGERPRINT)))
    owner.kill()
    owner.wait()
    assert read_owner(store.lease_path(FINGERPRINT)) is not None
    started = time.monotonic()
    outcome = make_demo(store, wait_seconds=30)
    assert not outcome.reused
    assert time.monotonic() - started < 5


def test_live_but_silent_owner_is_not_robbed(tmp_path: Path):
    store = Store(tmp_path)
    path = store.lease_path(FINGERPRINT)
    owner = python(
        "with hold(store.lease_path(sys.argv[2]), wait_seconds=0, heartbeat_seconds=0.05):\n"
        "    time.sleep(60)",
        tmp_path,
        FINGERPRINT,
    )
    try:
        wait_until(lambda: read_owner(path))
        os.kill(owner.pid, signal.SIGSTOP)  # alive, but its heartbeat stands still
        with pytest.raises(LeaseHeld) as raised:
            Lease(path, stale_after_seconds=0.1).acquire(wait_seconds=1, on_wait=lambda owner: None)
        assert f"process {owner.pid}" in str(raised.value)
        assert raised.value.exit_code == 6
    finally:
        os.kill(owner.pid, signal.SIGCONT)
        owner.kill()
        owner.wait()


def test_reused_pid_is_not_taken_for_the_old_owner(path: Path):
    write_owner(path, replace(Owner.myself(), token="other", process_started=1.0))
    with hold(path, wait_seconds=0) as lease:
        assert lease.took_over_from is not None


def test_owner_on_another_host_is_taken_over_only_when_its_counter_stands_still(
    path: Path, elsewhere: Owner
):
    write_owner(path, elsewhere)
    with pytest.raises(LeaseHeld):
        Lease(path, stale_after_seconds=5).acquire(wait_seconds=0.5, on_wait=lambda owner: None)
    started = time.monotonic()
    lease = Lease(path, stale_after_seconds=0.5)
    lease.acquire(wait_seconds=10, on_wait=lambda owner: None)
    assert time.monotonic() - started >= 0.5
    assert lease.took_over_from == elsewhere
    lease.release()


def test_owner_on_another_host_keeps_its_lease_while_its_counter_moves(
    path: Path, elsewhere: Owner, monkeypatch: pytest.MonkeyPatch
):
    write_owner(path, elsewhere)
    beats = iter(range(1, 1000))
    sleep = time.sleep

    def beat_and_sleep(seconds: float) -> None:
        write_owner(path, replace(elsewhere, beat=next(beats)))
        sleep(seconds)

    monkeypatch.setattr(leases.time, "sleep", beat_and_sleep)
    with pytest.raises(LeaseHeld):
        Lease(path, stale_after_seconds=0.3).acquire(wait_seconds=1.2, on_wait=lambda owner: None)


@pytest.mark.parametrize("change", [{"process_table": "another boot"}, {"host": "another"}])
def test_process_of_another_boot_or_container_is_not_looked_up_here(change: dict):
    gone = replace(Owner.myself(), process_started=1.0)
    assert gone.is_dead()
    assert not replace(gone, **change).is_dead()


def test_heartbeat_raises_the_counter(path: Path):
    with hold(path, wait_seconds=0, heartbeat_seconds=0.02):
        wait_until(lambda: (owner := read_owner(path)) and owner.beat >= 3)


def test_heartbeat_survives_a_disk_that_is_full_for_a_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, failures = leases.write_text_synced, []

    def full(target: Path, text: str) -> None:
        failures.append(target)
        raise OSError(28, "No space left on device")

    with hold(path, wait_seconds=0, heartbeat_seconds=0.02):
        monkeypatch.setattr(leases, "write_text_synced", full)
        wait_until(lambda: len(failures) >= 2)
        monkeypatch.setattr(leases, "write_text_synced", real)
        before = read_owner(path)
        wait_until(lambda: read_owner(path) != before)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 1}', '{"pid": "x"}'])
def test_unreadable_lease_file_is_no_owner(path: Path, text: str):
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with hold(path, wait_seconds=0) as lease:
        lease.check()


def test_released_lease_leaves_no_file(path: Path):
    with hold(path, wait_seconds=0):
        assert path.exists()
    assert list(path.parent.iterdir()) == []


def test_lost_lease_publishes_nothing(tmp_path: Path, elsewhere: Owner):
    store = Store(tmp_path)

    def robbed_meanwhile(area):
        write_owner(store.lease_path(FINGERPRINT), elsewhere)
        return writes()(area)

    with pytest.raises(LeaseLost) as raised:
        make(store, identity(), robbed_meanwhile)
    assert raised.value.exit_code == 6
    assert list(store.artifacts()) == []
    assert read_owner(store.lease_path(FINGERPRINT)) == elsewhere


def test_robbed_owner_that_writes_on_does_not_touch_the_new_owners_files(tmp_path: Path):
    store = Store(tmp_path)
    robbed = store.begin(FINGERPRINT)
    new = store.begin(FINGERPRINT)
    assert robbed.out != new.out
    assert robbed.work == new.work
    with pytest.raises(FileNotFoundError):
        (robbed.out / "model.bin").write_text("late")


def test_wait_that_runs_out_says_who_holds_the_lease(tmp_path: Path, elsewhere: Owner):
    store = Store(tmp_path)
    write_owner(store.lease_path(FINGERPRINT), elsewhere)
    with pytest.raises(LeaseHeld, match="another-host") as raised:
        make(store, identity(), must_not_run, wait_seconds=0.1)
    assert raised.value.exit_code == 6


def test_wait_is_announced_once(path: Path, elsewhere: Owner):
    write_owner(path, elsewhere)
    told: list[Owner] = []
    with pytest.raises(LeaseHeld):
        Lease(path).acquire(wait_seconds=0.6, on_wait=told.append)
    assert told == [elsewhere]


@pytest.mark.parametrize("days", [-1, 1])
def test_clock_that_is_set_does_not_matter_to_leases(
    path: Path, days: int, monkeypatch: pytest.MonkeyPatch
):
    now = time.time
    with hold(path, wait_seconds=0) as lease:
        monkeypatch.setattr(time, "time", lambda: now() + days * 86400)
        monkeypatch.setattr(time, "time_ns", lambda: int((now() + days * 86400) * 1e9))
        with pytest.raises(LeaseHeld):
            Lease(path, stale_after_seconds=0.1).acquire(
                wait_seconds=0.5, on_wait=lambda owner: None
            )
        lease.check()


def test_only_one_of_many_processes_gets_a_free_lease(tmp_path: Path):
    script = (
        "from swiftcore.errors import LeaseHeld\n"
        "try:\n"
        "    with hold(store.lease_path('f'), wait_seconds=0):\n"
        "        print('held')\n"
        "        deadline = time.monotonic() + 60\n"
        "        while len(list(store.root.glob('refused-*'))) < 3:\n"
        "            assert time.monotonic() < deadline\n"
        "            time.sleep(0.01)\n"
        "except LeaseHeld:\n"
        "    print('refused')\n"
        "    (store.root / f'refused-{os.getpid()}').touch()\n"
    )
    processes = [python(script, tmp_path) for _ in range(4)]
    said = sorted(process.communicate(timeout=90)[0].strip() for process in processes)
    assert said == ["held", "refused", "refused", "refused"]
