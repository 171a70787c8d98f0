"""The guard of a tool's server, run by the backend's own Python: standard library only.

    python -I tool_guard.py PROGRAM ARGUMENTS...

It starts the program and stays above it. Standard input is a pipe that the parent holds open and
never writes to: its end tells the guard that the parent is gone, however it went. The first SIGTERM
is passed on, the second kills. When the program ends, so does everything that it started, and the
guard ends as it did; engine processes that left the group are found too, because orphans below the
guard become its children.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.02
# Python's own process that removes the shared memory of those that were killed, and then ends.
_TRACKER = b"multiprocessing.resource_tracker"


def main(command):
    """Run the program and end as it ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    program = os.fork()
    if program == 0:
        _become(command, guard)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _stop(program))
    threading.Thread(target=_end_with_parent, args=(program,), daemon=True).start()
    status = _wait_for(program)
    _end_family()
    _end_as(os.waitstatus_to_exitcode(status))


def _stop(program):
    signal.signal(signal.SIGTERM, lambda *_: _kill_all_but_trackers())
    _ask_to_stop(program)


def _become(command, guard):
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.execv(command[0], command)


def _wait_for(program):
    while True:
        pid, status = os.wait()
        if pid == program:
            return status


def _end_with_parent(program):
    while os.read(0, 1):
        pass
    _ask_to_stop(program)
    time.sleep(_GRACE_SECONDS)
    _kill_all_but_trackers()


def _end_family():
    """Kill all that is left below, until the kernel says that there is nobody."""
    deadline = time.monotonic() + _GRACE_SECONDS
    with contextlib.suppress(ChildProcessError):
        while True:
            if time.monotonic() < deadline:
                _kill_all_but_trackers()
            else:
                _kill(_below(os.getpid()))
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(_POLL_SECONDS)


def _kill_all_but_trackers():
    _kill(pid for pid in _below(os.getpid()) if not _is_tracker(pid))


def _is_tracker(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as stream:
        return _TRACKER in stream.read()
    return False


def _below(root):
    """Return the processes below one, as the kernel lists them now."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", errors="replace") as stream:
            parents[int(name)] = int(stream.read().rpartition(")")[2].split()[1])
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found - {root}
        found |= more


def _kill(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ask_to_stop(program):
    with contextlib.suppress(ProcessLookupError):
        os.kill(program, signal.SIGTERM)


def _end_as(exit_code):
    if exit_code < 0:
        if -exit_code != signal.SIGKILL:
            signal.signal(-exit_code, signal.SIG_DFL)
        os.kill(os.getpid(), -exit_code)
    os._exit(exit_code)


def _prctl(option, value):
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, int(value))


if __name__ == "__main__":
    main(sys.argv[1:])
