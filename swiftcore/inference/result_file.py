"""A file of JSON lines that grows row by row and can be gone on with after any kind of end.

Beside it stands a record of what makes it. Whoever opens the file says what they are about to make;
when the record says the same, the lines that are there are kept and the work goes on behind them.
Lines are appended in batches, each with one write that reaches the disk before the next is made, so
a process that is killed loses the batch in its hands and nothing else: the half line that it may
leave behind is cut off when the file is opened again.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from swiftcore.atomic import write_text_synced
from swiftcore.errors import ArtifactDamaged, TransientError, UsageError

RECORD_SCHEMA = 1
_BLOCK_BYTES = 1 << 16
_MAX_NAMED = 8


class ResultFile:
    """JSON lines of one piece of work, opened to be gone on with. Use it in a `with` statement.

    One process at a time holds the file.

    Args:
        path: of the file; its folder is made.
        made_of: everything that shapes the lines, as JSON can hold it.

    Attributes:
        path: of the file.
        num_lines: complete lines so far.

    Raises:
        UsageError: a file is there that was made of something else, or by someone else.
        TransientError: another process is writing it.
    """

    def __init__(self, path: Path, made_of: Mapping[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"schema": RECORD_SCHEMA, "made_of": json.loads(json.dumps(made_of))}
        self._stream: IO[bytes] = path.open("a+b")
        try:
            self._lock()
            self.num_lines = self._settled(record)
        except BaseException:
            self._stream.close()
            raise

    @property
    def record_path(self) -> Path:
        """Return where the record of what makes the file stands."""
        return record_path(self.path)

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write a batch of lines; once this returns, they are there whatever happens."""
        if not lines:
            return
        written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        # Text of a model may hold half a surrogate pair, which UTF-8 has no bytes for.
        self._stream.write(written.encode("utf-8", "backslashreplace"))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.num_lines += len(lines)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that are there, in order.

        Raises:
            ArtifactDamaged: one of them is no JSON object.
        """
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield _object(line, f"{self.path}:{number}")

    def __enter__(self) -> "ResultFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise TransientError(
                "Another process is writing this file.",
                where=self.path,
                do="wait until it has ended, or name another file",
            ) from err

    def _settled(self, record: dict[str, Any]) -> int:
        """Take up what is there, or start anew; return the number of complete lines."""
        if not self._stream.seek(0, os.SEEK_END):
            write_text_synced(self.record_path, json.dumps(record, indent=2) + "\n")
            return 0
        self._refuse_other_work(record)
        return self._without_half_line()

    def _refuse_other_work(self, record: dict[str, Any]) -> None:
        found = _read_record(self.record_path)
        if found == record:
            return
        raise UsageError(
            "The file for the results is there already, and something else made it.",
            where=self.path,
            found="no record of what made it" if found is None else _differences(found, record),
            expected="no file, or one that the same work left unfinished",
            do="name another file, or remove this one; results are never added to those of "
            "other work",
        )

    def _without_half_line(self) -> int:
        self._stream.seek(0)
        count = end = read = 0
        while block := self._stream.read(_BLOCK_BYTES):
            count += block.count(b"\n")
            if (last := block.rfind(b"\n")) >= 0:
                end = read + last + 1
            read += len(block)
        if end < read:
            self._stream.truncate(end)
        return count


def record_path(path: Path) -> Path:
    """Return where the record of a result file stands."""
    return path.with_name(f"{path.name}.record.json")


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Name what differs between two records."""
    before, now = found.get("made_of"), wanted["made_of"]
    if not isinstance(before, dict) or found.get("schema") != RECORD_SCHEMA:
        return "a record of another kind"
    names = sorted(name for name in {*before, *now} if before.get(name, ...) != now.get(name, ...))
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"other values of {', '.join(names[:_MAX_NAMED])}{more}"


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ArtifactDamaged(
            "A line of the results can't be read.",
            where=where,
            found=repr(line[:80]),
            expected="a JSON object",
            do="remove the file and its record, and run again",
        )
    return value
