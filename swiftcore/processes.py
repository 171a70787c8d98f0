"""What one process may know of another: whether it still is the same one, and dying together."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 1.0


def process_start(pid: int) -> float | None:
    """Return the start time of a live process, so that a reused pid is not taken for the old one.

    On Linux this is the kernel's count of ticks since boot: a clock that is set does not move it.
    A zombie is no live process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *numbers = stat.rpartition(")")[2].split()
        return None if state in "ZX" else float(numbers[18])
    except (OSError, ValueError, IndexError):
        return None if Path("/proc/self/stat").exists() else _portable_start(pid)


def process_table() -> str:
    """Return what names this boot of the machine and this pid namespace; "" where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def die_with_parent(parent_pid: int) -> None:
    """End this process when the given parent ends, however it ends.

    Linux sends a signal (prctl 2, PR_SET_PDEATHSIG); elsewhere a thread looks at the parent's id.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent_pid,), daemon=True).start()
    # The parent may have ended before the line above took effect.
    if os.getppid() != parent_pid:
        os._exit(1)


def tied_to_this_process(command: Sequence[str]) -> list[str]:
    """Return a command line that runs a foreign program and, on Linux, ends it with this process.

    Start it from a thread that waits for its end: the kernel looks at the thread.
    """
    program = "import sys; from swiftcore.processes import run_tied; run_tied(sys.argv[1:])"
    return [sys.executable, "-c", program, str(os.getpid()), *command]


def run_tied(arguments: Sequence[str]) -> None:
    """Become the program of `tied_to_this_process`: the parent's id, then its command line."""
    die_with_parent(int(arguments[0]))
    os.execvp(arguments[1], list(arguments[1:]))


def _portable_start(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
