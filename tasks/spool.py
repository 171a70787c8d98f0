"""What MLflow should be told, kept in a file until MLflow has heard it, in order, exactly once.

    <store>/spool/<key>.jsonl       one event a line, appended by the flow run that owns it
    <store>/spool/<key>.sent.json   how many bytes were forwarded, and the MLflow id of each run

Training never waits for MLflow: events are appended first and forwarded when MLflow answers. The
owner holds an advisory lock on the file, which the kernel drops when it dies; then the next flow
(or `replay_spool`) forwards the rest. The offset is written after an event is accepted. A crash
between the two sends one event again, so each event is one that MLflow takes twice without harm:
runs are found again by their key, and a metric point repeats with its own timestamp and step, which
the tracking store keeps once.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from swiftcore.atomic import write_text_synced

Event = dict[str, Any]
_MAX_POINTS = 900  # MLflow takes at most 1000 metrics a batch


class MlflowAway(Exception):
    """MLflow does not answer; the event stays in the spool."""


class EventRejected(Exception):
    """MLflow answers and refuses an event; sending it again would not help."""


class Sink(Protocol):
    """Takes events one after another."""

    def send(self, event: Event, runs: dict[str, str]) -> None:
        """Apply an event; a new run's id is added to `runs` under its key.

        Raises:
            MlflowAway: nobody answers.
            EventRejected: the event can never be applied.
        """


@dataclass
class Sent:
    """How far a spool was forwarded."""

    offset: int = 0
    runs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Sent":
        """Read the journal; a missing or torn one means nothing was forwarded."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()

    def write(self, path: Path) -> None:
        """Replace the journal in one step."""
        text = json.dumps({"offset": self.offset, "runs": self.runs})
        write_text_synced(path, text + "\n")


class Spool:
    """The events of one flow run."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._stream = path.open("ab+")
        fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.sent = Sent.read(self._journal)

    @classmethod
    def orphans(cls, folder: Path) -> Iterator["Spool"]:
        """Yield the spools in a folder that no living process owns, oldest first."""
        for path in sorted(folder.glob("*.jsonl"), key=lambda p: p.stat().st_mtime_ns):
            try:
                yield cls(path)
            except (BlockingIOError, FileNotFoundError):
                continue

    def append(self, event: Event) -> None:
        """Add an event and make sure that it survives a power cut."""
        self._stream.write(json.dumps(event, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def forward(self, sink: Sink) -> list[str]:
        """Send everything not sent yet and return what MLflow refused, in words.

        Raises:
            MlflowAway: nobody answers; what was accepted so far is noted.
        """
        refused = []
        for event, end in self._pending():
            try:
                sink.send(event, self.sent.runs)
            except EventRejected as err:
                refused.append(f"{event['op']} of {event['run']}: {err}")
            self.sent.offset = end
            self.sent.write(self._journal)
        return refused

    def open_runs(self) -> list[str]:
        """Return the keys of runs that were started and not ended, the newest first."""
        started: list[str] = []
        for event, _ in self._lines(0):
            if event["op"] == "start":
                started.insert(0, event["run"])
            elif event["op"] == "end" and event["run"] in started:
                started.remove(event["run"])
        return started

    def all_sent(self) -> bool:
        """Tell whether MLflow has heard everything."""
        return self.sent.offset >= self._whole_bytes()

    def mend(self) -> None:
        """Cut off a line that its writer did not finish."""
        self._stream.truncate(self._whole_bytes())

    def close(self, *, remove: bool = False) -> None:
        """Give the file back; remove it with its journal when it is of no more use."""
        if remove:
            self.path.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)
        self._stream.close()

    @property
    def _journal(self) -> Path:
        return self.path.with_suffix(".sent.json")

    def _whole_bytes(self) -> int:
        return self.path.read_bytes().rfind(b"\n") + 1

    def _lines(self, offset: int) -> Iterator[tuple[Event, int]]:
        with self.path.open("rb") as stream:
            stream.seek(offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield json.loads(line), offset

    def _pending(self) -> Iterator[tuple[Event, int]]:
        """Yield events and the offset behind each; metric lines of one run come as one event."""
        batch: Event | None = None
        batch_end = 0
        for event, end in self._lines(self.sent.offset):
            joins = batch is not None and event["op"] == "metrics" and event["run"] == batch["run"]
            if batch is not None and joins and len(batch["points"]) < _MAX_POINTS:
                batch["points"] += event["points"]
                batch_end = end
                continue
            if batch is not None:
                yield batch, batch_end
            batch = event if event["op"] == "metrics" else None
            batch_end = end
            if batch is None:
                yield event, end
        if batch is not None:
            yield batch, batch_end
