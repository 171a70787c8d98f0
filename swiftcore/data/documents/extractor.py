"""Documents read in a bounded process of their own, so that a hostile file costs one file."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from swiftcore.data.documents.kinds import document_kind, no_reader
from swiftcore.data.documents.outcomes import (
    Break,
    DocumentPart,
    ExtractedDocument,
    ExtractionLimits,
    FailedDocument,
)
from swiftcore.errors import EnvironmentMissing

_BLOCK_BYTES = 2**20
# UTF-8 takes up to four bytes a character, JSON up to six for a control character.
_BYTES_A_CHARACTER = 6
_ANSWER_SLACK_BYTES = 16 * 2**20
_END_SECONDS = 5.0
_START_SECONDS = 120.0


class DocumentExtractor:
    """Reads documents in a worker process, which is started again when a file ends it.

    Use it as a context manager; the worker starts with the first document and dies with us.

    Args:
        limits: what one file may cost.
    """

    def __init__(self, limits: ExtractionLimits | None = None) -> None:
        self.limits = limits or ExtractionLimits()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_fresh = True

    def __enter__(self) -> "DocumentExtractor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def worker_pid(self) -> int:
        """The process that reads; it is started when there is none."""
        return self._running().pid

    def extract(self, path: Path) -> ExtractedDocument | FailedDocument:
        """Return the text of one document, or why there is none; broken files never raise."""
        kind = document_kind(path)
        if kind is None:
            return FailedDocument(path, None, no_reader(path))
        answer = self._ask(path)
        if answer.get("out_of_memory") and not self._is_fresh:
            # Earlier files may have left the process too little; a new one decides.
            self.close()
            answer = self._ask(path)
        if answer.get("out_of_memory"):
            self.close()
        self._is_fresh = self._process is None
        if "reason" in answer:
            return FailedDocument(path, kind, str(answer["reason"]))
        return ExtractedDocument(
            path,
            kind,
            answer["text"],
            tuple(DocumentPart(*part) for part in answer["parts"]),
            tuple(Break(*point) for point in answer["breaks"]),
            tuple(answer["notes"]),
        )

    def interrupt(self) -> None:
        """End the worker under a document that another thread waits for; that one fails."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the worker; nobody may be waiting for a document."""
        process, self._process = self._process, None
        self._is_fresh = True
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.kill()
        process.wait(_END_SECONDS)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._process = _start(self.limits)
            # Its start does not count against the first file.
            if self._answer_line(self._process, _START_SECONDS) is None:
                reason = self._end_reason(self._process)
                self.close()
                raise EnvironmentMissing(
                    "the process that reads documents does not start",
                    where="python -m swiftcore.data.documents.worker",
                    found=reason,
                    do="raise the memory limit; swift doctor checks this machine",
                )
        return self._process

    def _ask(self, path: Path) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"path": str(path.absolute())}).encode() + b"\n")
            process.stdin.flush()
            line = self._answer_line(process, self.limits.seconds_a_file)
        except BrokenPipeError:
            line = None
        if line is None:
            reason = self._end_reason(process)
            self.close()
            return {"reason": reason}
        return json.loads(line)

    def _answer_line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """Return one line; None when time ran out, too much came, or the process ended."""
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        most = self.limits.max_text_characters * _BYTES_A_CHARACTER + _ANSWER_SLACK_BYTES
        deadline = time.monotonic() + seconds
        received = bytearray()
        while len(received) <= most:
            ready, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
            block = os.read(descriptor, _BLOCK_BYTES) if ready else b""
            if not block:
                return None
            received += block
            if block.endswith(b"\n"):
                return bytes(received)
        return None

    def _end_reason(self, process: subprocess.Popen[bytes]) -> str:
        try:
            code = process.wait(0.2)
        except subprocess.TimeoutExpired:
            return f"took longer than {self.limits.seconds_a_file:g} s or gave too much text"
        if code >= 0:
            return f"ended its reader with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"its reader was ended by {name} (a crash, or no memory left on this machine)"


def _start(limits: ExtractionLimits) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "swiftcore.data.documents.worker"]
    command += [json.dumps(asdict(limits)), str(os.getpid())]
    # Idle threads of numeric libraries would take address space from the documents.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONIOENCODING"] = "utf-8:surrogateescape"
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        # Ctrl-C reaches us alone; we end the worker.
        start_new_session=True,
    )
