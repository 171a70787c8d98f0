"""Files that a reader sees whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from uuid import uuid4


def write_text_synced(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file so that it is either absent, old or complete, even after a power cut.

    Args:
        path: where to; its folder must exist.
        text: the content, written as UTF-8.
        mode: permissions of the new file, before the umask.
    """
    with synced_text(path, mode=mode) as stream:
        stream.write(text)


@contextmanager
def synced_text(path: Path, *, mode: int = 0o666) -> Iterator[TextIO]:
    """Yield a stream whose text becomes the file when the block ends without an exception.

    Args:
        path: where to; its folder must exist.
        mode: permissions of the new file, before the umask.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
