"""Naming a process so that another one with the same number is never taken for it."""

import os
import signal
import time
from dataclasses import asdict, dataclass
from typing import Any

from swiftcore.processes import process_start, process_table


@dataclass(frozen=True)
class ProcessIdentity:
    """A process: its number, and when it started.

    The start is the kernel's tick count since boot, with the boot's id, because wall-clock start
    times move when the clock is set.
    """

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """Return the identity of a running process; None when there is none, or only a zombie."""
        start = _start(pid)
        return None if start is None else cls(pid, start)

    @classmethod
    def from_dict(cls, fields: dict[str, Any] | None) -> "ProcessIdentity | None":
        """Rebuild an identity from `as_dict`."""
        return None if not fields else cls(int(fields["pid"]), str(fields["start"]))

    def as_dict(self) -> dict[str, Any]:
        """Return the identity as JSON-ready fields."""
        return asdict(self)

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _start(self.pid) == self.start

    def end(self, *, grace_seconds: float) -> None:
        """Ask the process to stop, and kill it when it has not after the grace time."""
        for signal_number, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
            if not self.alive:
                return
            try:
                os.kill(self.pid, signal_number)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + patience
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.02)


def owner_of_port(port: int) -> str | None:
    """Return 'name (pid N)' of the process listening on a port, if the system tells."""
    import psutil

    try:
        for connection in psutil.net_connections("inet"):
            listening = connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None
    return None


def _start(pid: int) -> str | None:
    started = process_start(pid)
    return None if started is None else f"{process_table()}:{started:.0f}"
