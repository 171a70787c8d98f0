"""Room on the disk: refuse to start without it, and recognise its end however it is reported."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from swiftcore.errors import StoreFull

_FULL = (errno.ENOSPC, errno.EDQUOT)
# safetensors, Arrow, SQLite and subprocesses raise errors of their own that only carry the text.
_FULL_TEXTS = ("no space left on device", "os error 28", "disk quota exceeded", "disk is full")


def require_room(root: Path, num_bytes: int) -> None:
    """Make sure that a store has room before hours of work start.

    Raises:
        StoreFull: less than `num_bytes` are free.
    """
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < num_bytes:
        raise _full(root, f"{free / 1e6:.1f} MB free, about {num_bytes / 1e6:.1f} MB needed")


@contextlib.contextmanager
def full_disk_reported(root: Path, half_written: Path | None = None) -> Iterator[None]:
    """Turn any error that a full disk caused into StoreFull.

    Args:
        root: of the store.
        half_written: a folder that is removed then, so that its space is free again.

    Raises:
        StoreFull: the disk filled up inside the block.
    """
    try:
        yield
    except StoreFull:
        raise
    except Exception as err:
        if not says_full(err):
            raise
        if half_written is not None:
            shutil.rmtree(half_written, ignore_errors=True)
        raise _full(root, f"the disk filled up while writing ({_first_line(err)})") from err


def says_full(err: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is a full disk."""
    while err is not None:
        if isinstance(err, OSError) and err.errno in _FULL:
            return True
        if any(text in str(err).lower() for text in _FULL_TEXTS):
            return True
        err = err.__cause__ or err.__context__
    return False


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]


def _full(root: Path, found: str) -> StoreFull:
    return StoreFull(
        "There is no room in the artifact store.",
        where=root,
        found=found,
        expected="room for the step's files; nothing was published and finished steps are kept",
        do="swift gc frees old artifacts; or set runtime.store to another disk",
    )
