"""Event files that TensorBoard reads, through tensorboardX."""

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from swiftcore.errors import EnvironmentMissing

_PREFIX = "events.out.tfevents."
_SUFFIX = ".swiftcore"
_NOT_SCALARS = ("step", "time")


class EventFile:
    """The scalars of one run. A new file replaces an earlier one of this folder.

    A run that goes on after a crash reports its lines from the first one again; two files would
    show them twice.

    Raises:
        EnvironmentMissing: tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
        except ImportError as err:
            raise EnvironmentMissing(
                "event files for TensorBoard need a package that is not installed",
                where="runtime.report_to",
                found="no tensorboardX",
                do="pip install 'swiftcore[tensorboard]', or leave report_to out",
            ) from err
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            earlier.unlink()
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=_SUFFIX)

    def add_line(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of a metric line, as `train/loss` or `eval/loss`, at once."""
        # Generated classes exist from import on; type checkers don't see them.
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        moment = line.get("time")
        seconds = datetime.fromisoformat(moment).timestamp() if moment else time.time()
        values = [
            Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in line.items()
            if name not in _NOT_SCALARS and isinstance(value, int | float)
        ]
        event = Event(wall_time=seconds, step=int(line["step"]), summary=Summary(value=values))
        self._writer.write_event(event)
        self._writer.flush()


def _tag(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
