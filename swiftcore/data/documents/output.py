"""The JSONL file of an ingestion: deduplicated while it is written, seen whole or not at all."""

import contextlib
import hashlib
import os
from collections import Counter
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from swiftcore.data.documents.result import Counts
from swiftcore.data.documents.schemas import Row, identity, row_line
from swiftcore.data.quarantine import quarantine_line
from swiftcore.data.readers.files import SourceRow
from swiftcore.errors import StoreFull, SwiftError

# Reasons may quote rows, so that there may be as many as rows.
_MAX_REASONS = 1000
_OTHER_REASONS = "other reasons"


class RowOutput:
    """Writes rows and rejected rows into files beside the output, which `publish` puts in place.

    A source that turns out damaged is taken back whole: `begin` before it, `take_back` after it.

    Args:
        path: the JSONL file to be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.quarantine_path = path.with_name(f"{path.name}.quarantine.jsonl")
        mark = uuid4().hex[:8]
        self._rows_path = path.with_name(f".{path.name}.{mark}.tmp")
        self._rejected_path = path.with_name(f".{path.name}.{mark}.rejected.tmp")
        self._seen: set[bytes] = set()
        self._new: list[bytes] = []
        self._begun_at: tuple[int, int] | None = None
        self._reasons_before: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def __enter__(self) -> "RowOutput":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._rows_path.open("xb")
            self._rejected = self._rejected_path.open("xb")
        except OSError as err:
            raise _not_writable(self.path, err) from err
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in (self._stream, self._rejected):
            # A full disk is met again by the flush of closing; the first time is what counts.
            with contextlib.suppress(OSError):
                stream.close()
        for path in (self._rows_path, self._rejected_path):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, SwiftError):
            raise _not_writable(self.path, error) from error

    @property
    def has_rejected(self) -> bool:
        """True when a rejected row was written."""
        return self._rejected.tell() > 0

    def begin(self) -> None:
        """Begin a source that may be taken back."""
        self._begun_at = self._stream.tell(), self._rejected.tell()
        self._reasons_before = self.reasons.copy()
        self._new.clear()

    def add(self, row: Row, counts: Counts) -> None:
        """Write a row unless one equal to it is there already, and count it.

        Raises:
            RejectedRow: it has no JSON form.
        """
        line = row_line(row)
        counts.chunks += 1
        digest = hashlib.sha256(identity(row, line)).digest()
        if digest in self._seen:
            counts.duplicates += 1
            return
        counts.rows += 1
        self._seen.add(digest)
        if self._begun_at is not None:
            self._new.append(digest)
        self._stream.write(line)

    def reject(self, raw: SourceRow, reason: str, counts: Counts) -> None:
        """Write a row that can't be used, with its place and reason, and count it."""
        counts.rejected += 1
        is_counted = reason in self.reasons or len(self.reasons) < _MAX_REASONS
        self.reasons[reason if is_counted else _OTHER_REASONS] += 1
        parsed = raw.problem is None
        line = quarantine_line(raw.source, raw.line, reason, raw.row, parsed)
        self._rejected.write(line.encode("utf-8"))

    def keep(self) -> None:
        """Keep what the source has written."""
        self._begun_at = None
        self._new.clear()

    def take_back(self) -> None:
        """Undo what the source has written."""
        if self._begun_at is not None:
            for stream, place in zip((self._stream, self._rejected), self._begun_at, strict=True):
                stream.truncate(place)
                stream.seek(place)
        self._seen.difference_update(self._new)
        self.reasons = self._reasons_before
        self.keep()

    def publish(self) -> str:
        """Put the files in their places, after they are safe on the disk, and return the SHA-256
        of the rows."""
        has_rejected = self.has_rejected
        for stream in (self._rejected, self._stream):
            stream.flush()
            os.fsync(stream.fileno())
        if has_rejected:
            os.replace(self._rejected_path, self.quarantine_path)
        else:
            # One of an earlier run would speak of rows that this one never saw.
            with contextlib.suppress(FileNotFoundError):
                self.quarantine_path.unlink()
        with self._rows_path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.replace(self._rows_path, self.path)
        return digest


def _not_writable(path: Path, err: OSError) -> StoreFull:
    return StoreFull(
        "the output can't be written",
        where=path,
        found=err.strerror or err,
        do="free some room there, or give another --output; an earlier output is as it was",
    )
