"""The files through which a training process and the process that watches it talk."""

import json
from pathlib import Path
from typing import Any

from swiftcore.atomic import write_text_synced


class Workspace:
    """Names of the files in a job's `work_dir`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = folder / "job.json"
        self.log = folder / "train.log"
        self.metrics = folder / "metrics.jsonl"
        self.started = folder / "started.json"
        self.failure = folder / "failure.json"
        self.result = folder / "result.json"
        self.checkpoints = folder / "checkpoints"

    def forget_attempt(self) -> None:
        """Remove what an earlier process said about itself; checkpoints and metrics stay."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in (self.started, self.result, *self.folder.glob("failure*.json")):
            file.unlink(missing_ok=True)

    def log_of(self, number: int) -> Path:
        """Return the log of a process of this machine."""
        return self.folder / f"train-{number}.log" if number else self.log

    def failure_of(self, number: int) -> Path:
        """Return the file in which a process of this machine says why it failed."""
        return self.folder / f"failure-{number}.json" if number else self.failure

    def log_tail(self, num_lines: int = 8, number: int = 0) -> str:
        """Return the last lines of a process's training log."""
        log = self.log_of(number)
        if not log.is_file():
            return ""
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-num_lines:])


def write_atomically(file: Path, value: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    write_text_synced(file, json.dumps(value, ensure_ascii=False))
