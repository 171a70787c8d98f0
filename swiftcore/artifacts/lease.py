"""One maker for one fingerprint, with takeover when the maker is dead.

A lease is a small JSON file that names its owner (host, pid, start time of that pid, a random
token) and carries a counter that the owner raises every few seconds. Changes to the file happen
under an advisory lock that the kernel drops when a process dies, so the file itself can't be torn.

Death is decided without comparing clocks of two machines. Where the owner's process table can be
read (same host, same boot, same pid namespace) it knows, so a live but slow owner keeps its lease;
elsewhere a waiter watches the counter and takes over when it stands still for `stale_after_seconds`
of the waiter's own monotonic clock.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from swiftcore.atomic import write_text_synced
from swiftcore.errors import LeaseHeld, LeaseLost
from swiftcore.processes import process_start, process_table

HEARTBEAT_SECONDS = 2.0
STALE_AFTER_SECONDS = 30.0


@dataclass(frozen=True)
class Owner:
    """Who holds a lease.

    Args:
        token: random, so that no two holders are ever taken for one.
        host: name of the machine.
        process_table: boot and pid namespace; container hosts often share one name.
        pid: process id in that table.
        process_started: start of the process, so that a reused pid is another process.
        beat: raised by the heartbeat.
    """

    __pydantic_config__ = ConfigDict(strict=True)

    token: str
    host: str
    pid: int
    process_started: float
    process_table: str = ""
    beat: int = 0

    @classmethod
    def myself(cls) -> "Owner":
        """Return this process as an owner with a token of its own."""
        pid = os.getpid()
        started = process_start(pid) or 0.0
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, started, process_table())

    def is_here(self) -> bool:
        """Tell whether this process can see the owner's process table."""
        return self.host == socket.gethostname() and self.process_table == process_table()

    def is_dead(self) -> bool:
        """Tell whether the owner is known to be gone; elsewhere nothing is known."""
        return self.is_here() and process_start(self.pid) != self.process_started

    def describe(self) -> str:
        """Return the owner as a person would name it."""
        return f"process {self.pid} on {self.host}"


_OWNER = TypeAdapter(Owner)


class Lease:
    """The right to make one artifact. Use through `hold`."""

    def __init__(
        self,
        path: Path,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        stale_after_seconds: float = STALE_AFTER_SECONDS,
    ) -> None:
        self.path = path
        self._heartbeat_seconds = heartbeat_seconds
        self._stale_after_seconds = stale_after_seconds
        self._owner = Owner.myself()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.took_over_from: Owner | None = None

    def try_acquire(self, *, presumed_dead: Owner | None = None) -> Owner | None:
        """Take the lease if it is free; return None on success, else the live owner.

        Args:
            presumed_dead: an owner whose counter this waiter has seen standing still too long.
        """
        with self._locked():
            current = read_owner(self.path)
            same_stalled = presumed_dead is not None and current == presumed_dead
            if current is not None and not current.is_dead() and not same_stalled:
                return current
            self.took_over_from = current
            self._write(self._owner)
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._thread.start()
        return None

    def acquire(self, *, wait_seconds: float, on_wait: Callable[[Owner], None]) -> None:
        """Take the lease, waiting while a live owner holds it.

        Raises:
            LeaseHeld: the wait ran out.
        """
        deadline = time.monotonic() + wait_seconds
        watched: Owner | None = None
        watched_since = time.monotonic()
        stalled: Owner | None = None
        while (owner := self.try_acquire(presumed_dead=stalled)) is not None:
            now = time.monotonic()
            if owner != watched:
                if watched is None or owner.token != watched.token:
                    on_wait(owner)
                watched, watched_since = owner, now
            elif not owner.is_here() and now - watched_since > self._stale_after_seconds:
                stalled = owner
            if now >= deadline:
                raise LeaseHeld(
                    "Another run is making the same artifact and has not finished in time.",
                    where=self.path.stem,
                    found=f"a live lease of {owner.describe()}",
                    expected=f"a result within {wait_seconds:g} s (runtime.lease_wait_seconds)",
                    do="wait for that run (or end it) and start again; its result will be reused",
                )
            time.sleep(min(0.2, max(0.01, deadline - now)))

    def check(self) -> None:
        """Make sure this process still holds the lease.

        Raises:
            LeaseLost: another process took over, so what this one made must not be published.
        """
        with self.guard():
            pass

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Publish inside this block: while it lasts, nobody can take the lease over.

        Raises:
            LeaseLost: another process has taken over.
        """
        with self._locked():
            current = read_owner(self.path)
            if current is None or current.token != self._owner.token:
                raise LeaseLost(
                    "This process was silent for too long and another one took its work over.",
                    where=self.path.stem,
                    found="no lease" if current is None else f"a lease of {current.describe()}",
                    expected=f"the lease of {self._owner.describe()}",
                    do="start the command again; the other run's result will be reused",
                )
            yield

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._locked():
            current = read_owner(self.path)
            if current is not None and current.token == self._owner.token:
                self.path.unlink(missing_ok=True)
                self._lock_path.unlink(missing_ok=True)

    def _beat(self) -> None:
        beat = 0
        while not self._stop.wait(self._heartbeat_seconds):
            beat += 1
            try:
                with self._locked():
                    current = read_owner(self.path)
                    if current is None or current.token != self._owner.token:
                        return
                    self._write(replace(self._owner, beat=beat))
            except OSError:  # a full disk, a share that is away: the next beat may succeed
                continue

    def _write(self, owner: Owner) -> None:
        write_text_synced(self.path, json.dumps(asdict(owner)) + "\n")

    @property
    def _lock_path(self) -> Path:
        return self.path.with_suffix(".lock")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with self._lock_path.open("a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                if not _is_still_at(self._lock_path, stream.fileno()):
                    continue  # the holder before us gave the lease back and removed this file
                try:
                    yield
                finally:
                    # Said aloud, because a child forked in this moment keeps the file open.
                    fcntl.flock(stream, fcntl.LOCK_UN)
                return


def _is_still_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    wait_seconds: float,
    on_wait: Callable[[Owner], None] = lambda owner: None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    stale_after_seconds: float = STALE_AFTER_SECONDS,
) -> Iterator[Lease]:
    """Hold the lease at `path` for the length of a `with` block."""
    lease = Lease(
        path, heartbeat_seconds=heartbeat_seconds, stale_after_seconds=stale_after_seconds
    )
    lease.acquire(wait_seconds=wait_seconds, on_wait=on_wait)
    try:
        yield lease
    finally:
        lease.release()


def read_owner(path: Path) -> Owner | None:
    """Return who holds the lease at `path`; a missing or unreadable file is no owner."""
    try:
        return _OWNER.validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
