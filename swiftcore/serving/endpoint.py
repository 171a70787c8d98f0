"""The folder that remembers one endpoint: its state, its journal, its logs.

state.json      what runs now, and what ran before (written by the gateway, atomically)
control.json    where the gateway takes commands, and the token it wants (0600)
journal.jsonl   every decision, appended and synced
lock            held while a gateway is being started
logs/           output of the gateway and of each backend
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swiftcore.atomic import write_text_synced
from swiftcore.errors import ArtifactDamaged
from swiftcore.serving.process import ProcessIdentity

SCHEMA = 1


class EndpointFolder:
    """Reads and writes one endpoint's files."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()

    @property
    def logs(self) -> Path:
        """Where processes write."""
        return self.path / "logs"

    def create(self) -> None:
        """Make the folder, readable by its owner only: the control token is in it."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.logs.mkdir(exist_ok=True)

    def read_state(self) -> dict[str, Any] | None:
        """Return the last written state; None when this endpoint was never started.

        Raises:
            ArtifactDamaged: the file is not what this program writes.
        """
        return self._read("state.json")

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the state in one step."""
        self._replace("state.json", {"schema": SCHEMA, **state})

    def read_control(self) -> dict[str, Any] | None:
        """Return port and token of the gateway's control channel."""
        return self._read("control.json")

    def write_control(self, port: int, token: str, pid: int) -> None:
        """Publish the control channel."""
        self._replace("control.json", {"port": port, "token": token, "pid": pid})

    def record(self, decision: str, **facts: object) -> None:
        """Append a decision to the journal and sync it."""
        line = {"time": datetime.now(UTC).isoformat(), "decision": decision, **facts}
        with (self.path / "journal.jsonl").open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line, ensure_ascii=False) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def gateway(self) -> ProcessIdentity | None:
        """Return the gateway process if it is alive."""
        state = self.read_state()
        identity = ProcessIdentity.from_dict((state or {}).get("gateway"))
        return identity if identity and identity.alive else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the endpoint's lock; the kernel frees it when the holder dies."""
        with (self.path / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        if not isinstance(fields, dict):
            raise _damaged(path, type(fields).__name__)
        return fields

    def _replace(self, name: str, fields: dict[str, Any]) -> None:
        text = json.dumps(fields, ensure_ascii=False, indent=1)
        write_text_synced(self.path / name, text, mode=0o600)


def _damaged(path: Path, found: str) -> ArtifactDamaged:
    return ArtifactDamaged(
        "an endpoint's state file can't be read",
        where=path,
        found=found,
        expected="a JSON object written by the gateway",
        do=f"stop what still runs, then remove {path.parent}",
    )
