"""How a training process ends early: when asked, and when its parent is gone."""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 1.0


class StopRequest:
    """Notes SIGTERM, so that the training can write a checkpoint before it ends."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Take SIGTERM from now on; a second one has the system's default effect."""
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, signum: int, frame: object) -> None:
        self.requested = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


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


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
