"""The process that reads documents: `python -m swiftcore.data.documents.worker LIMITS PARENT_PID`.

It takes one JSON line `{"path": ...}` on stdin and answers one JSON line on stdout: the text with
its parts, or a reason; the first line says that it is ready. It lives under limits of memory and
file size, and can neither start programs nor open connections.
"""

import json
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from swiftcore.data.documents.extract import extract
from swiftcore.data.documents.outcomes import DocumentRefused, ExtractedDocument, ExtractionLimits
from swiftcore.processes import die_with_parent

# Compiled modules of Python are the only files it may write.
_MAX_WRITTEN_BYTES = 16 * 2**20
_FORBIDDEN = ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec")
_FORBIDDEN += ("os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")
_MAX_REASON_CHARACTERS = 500


def main(arguments: Sequence[str]) -> int:
    """Answer requests until stdin ends."""
    die_with_parent(int(arguments[1]))
    limits = ExtractionLimits(**json.loads(arguments[0]))
    answers = _private_stdout()
    _limit_process(limits)
    sys.addaudithook(_refuse)
    _say(answers, {"ready": True})
    for line in sys.stdin:
        _say(answers, _answer(Path(json.loads(line)["path"]), limits))
    return 0


def _say(answers: TextIO, value: dict[str, object]) -> None:
    answers.write(json.dumps(value, ensure_ascii=False) + "\n")
    answers.flush()


def _private_stdout() -> TextIO:
    """Return the way to the parent, which a library's print can't disturb any more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    return answers


def _limit_process(limits: ExtractionLimits) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, _MAX_WRITTEN_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _refuse(event: str, _: object) -> None:
    if event in _FORBIDDEN:
        raise PermissionError(f"a document made its reader try {event}")


def _answer(path: Path, limits: ExtractionLimits) -> dict[str, object]:
    try:
        return _fields(extract(path, limits))
    except DocumentRefused as err:
        return {"reason": err.message}
    except MemoryError:
        allowed = limits.memory_bytes // 2**20
        return {"reason": f"needs more than {allowed:,} MiB of memory", "out_of_memory": True}
    except RecursionError:
        return {"reason": "is nested too deeply"}
    # Parsers meet broken files with whatever the line at hand raises.
    except Exception as err:
        text = f"can't be read: {type(err).__name__}: {err}"
        return {"reason": text.encode("utf-8", "replace").decode()[:_MAX_REASON_CHARACTERS]}


def _fields(document: ExtractedDocument) -> dict[str, object]:
    return {
        "text": document.text,
        "parts": [list(asdict(part).values()) for part in document.parts],
        "breaks": [[point.at, point.level] for point in document.breaks],
        "notes": [note.encode("utf-8", "replace").decode() for note in document.notes],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
