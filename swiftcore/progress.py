"""How long work tells its progress: a protocol, so the terminal and Prefect can both listen."""

import sys
import time
from typing import Protocol, TextIO


class Progress(Protocol):
    """Receives how far a piece of work is."""

    def update(self, done: float, total: float | None, text: str) -> None:
        """Take `done` of `total` units (None: unknown) and a short text of what is going on."""


class Silent:
    """Progress that nobody watches."""

    def update(self, done: float, total: float | None, text: str) -> None:
        """Ignore the news."""


class TerminalProgress:
    """One line on stderr with share, ETA and text; a plain line now and then without a terminal."""

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._origin: tuple[float, float] | None = None
        self._last = 0.0

    def update(self, done: float, total: float | None, text: str) -> None:
        """Print at most ten times a second on a terminal, every ten seconds elsewhere."""
        now = time.monotonic()
        if total and self._origin is None:
            # A resumed run is done with a part before it starts, and loading says nothing of speed.
            self._origin = (now, done)
        finished = total is not None and done >= total
        if not finished and now - self._last < (0.1 if self._tty else 10.0):
            return
        self._last = now
        share, eta = "", ""
        if total:
            share = f" {min(done / total, 1.0):4.0%}"
            eta = self._eta(now, done, total)
        line = f"  {self._label:<9}{share}{eta}  {text}"
        if self._tty:
            self._stream.write("\r\x1b[2K" + line + ("\n" if finished else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _eta(self, now: float, done: float, total: float) -> str:
        started, before = self._origin or (now, done)
        if not before < done < total:
            return ""
        return f"  ETA {_clock((now - started) * (total - done) / (done - before))}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
