"""Opening data files: plain, gzip or zstd, and noticing when one changes while it is read."""

import contextlib
import gzip
import io
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from swiftcore.errors import DataError, EnvironmentMissing

COMPRESSIONS = (".gz", ".zst")

_BUFFER_BYTES = 2**18
# This holds at most 64 zstd blocks of 128 KiB: the most that one call can unpack.
_ZSTD_PIECE_BYTES = 2**8
# Tables need their end first, so a compressed one is unpacked to disk; a bomb must end somewhere.
_MAX_UNPACKED_BYTES = 64 * 2**30

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class DamagedZstd(Exception):
    """A zstd archive can't be unpacked, or ends too early."""


ARCHIVE_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, DamagedZstd)


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file on disk, to notice a change.

    Args:
        size_bytes: its length.
        modified_ns: time of the last write.
        inode: changes when another file takes the name.
    """

    size_bytes: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path | int) -> "Stamp":
        """Return the state of a path or an open descriptor."""
        found = os.stat(path)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@contextlib.contextmanager
def open_data(path: Path, source: str, stamp: Stamp | None = None) -> Iterator[BinaryIO]:
    """Open a data file for reading, unpacked; a change until the end of the block is an error.

    Args:
        path: the file.
        source: its name in messages.
        stamp: state it must still have; None takes the state it has now.

    Raises:
        DataError: it is missing, no regular file, not readable, or changed meanwhile.
    """
    raw = _open_regular(path, source)
    with contextlib.closing(raw):
        before = stamp or Stamp.of(raw.fileno())
        _require_unchanged(before, Stamp.of(raw.fileno()), source)
        # Kept until the end of the block: a buffer that is dropped closes the file under it.
        stream = _unpacked(path, raw)
        yield stream
        _require_unchanged(before, Stamp.of(raw.fileno()), source)
        try:
            after = Stamp.of(path)
        except OSError:
            after = None
        _require_unchanged(before, after, source)


def is_on_disk(stream: BinaryIO) -> bool:
    """Tell whether a stream is a file itself, so that seeking in it costs nothing."""
    return isinstance(getattr(stream, "raw", stream), io.FileIO)


@contextlib.contextmanager
def seekable(stream: BinaryIO, source: str) -> Iterator[IO[bytes]]:
    """Give the stream itself when it is a file, else an unpacked copy in a temporary file.

    Raises:
        DataError: the unpacked copy grows beyond any sensible size.
    """
    if is_on_disk(stream):
        yield stream
        return
    with tempfile.TemporaryFile() as copy:
        while piece := stream.read(2**20):
            if copy.tell() > min(
                _MAX_UNPACKED_BYTES, shutil.disk_usage(tempfile.gettempdir()).free
            ):
                raise DataError(
                    "the archive is too large to unpack beside its file",
                    where=source,
                    found=f"more than {copy.tell():,} bytes",
                    do="unpack it to a disk with room and give the unpacked file",
                )
            copy.write(piece)
        copy.seek(0)
        yield copy


def _open_regular(path: Path, source: str) -> io.FileIO:
    """Open without waiting: a pipe that nobody writes to would block for ever."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            raw = io.FileIO(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
            mode = os.fstat(raw.fileno()).st_mode
            if stat.S_ISREG(mode):
                return raw
            raw.close()
    except OSError as err:
        raise DataError("the file can't be read", where=source, found=err.strerror or err) from err
    raise DataError(
        "this is no regular file",
        where=source,
        found=next((name for is_kind, name in _KINDS if is_kind(mode)), "something else"),
        expected="a file on disk",
        do="name the files in it, or write what it delivers to a file first",
    )


def _require_unchanged(before: Stamp, after: Stamp | None, source: str) -> None:
    if before == after:
        return
    raise DataError(
        "the file changed while it was read; nothing of it was used",
        where=source,
        found="it is gone" if after is None else f"{after.size_bytes:,} bytes now",
        expected=f"the {before.size_bytes:,} bytes it had at first, untouched",
        do="wait until whatever writes it is done, then run again",
    )


def _unpacked(path: Path, raw: io.FileIO) -> BinaryIO:
    name = path.name.lower()
    if name.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES)  # type: ignore[arg-type]
    if name.endswith(".zst"):
        return io.BufferedReader(_ZstdFrames(raw), _BUFFER_BYTES)
    return io.BufferedReader(raw, _BUFFER_BYTES)


class _ZstdFrames(io.RawIOBase):
    """The content of zstd frames one after the other; a frame that breaks off is an error.

    zstandard's own stream_reader takes a cut-off file for a complete one.
    """

    def __init__(self, packed: io.FileIO) -> None:
        try:
            import zstandard
        except ImportError as err:
            raise EnvironmentMissing(
                "zstd files need the package zstandard, which is not installed",
                do="pip install 'swiftcore[sources]'",
            ) from err
        self._packed = packed
        self._failure = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._rewind()

    def _rewind(self) -> None:
        self._packed.seek(0)
        self._frame: Any = None
        self._rest = b""
        self._ready = memoryview(b"")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset != 0 or whence != 0:
            raise io.UnsupportedOperation("a zstd stream only goes back to its start")
        self._rewind()
        return 0

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._unpack_more():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        self._position += count
        return count

    def _unpack_more(self) -> bool:
        piece = self._rest or self._packed.read(_ZSTD_PIECE_BYTES) or b""
        self._rest = b""
        if not piece:
            if self._frame is not None:
                raise DamagedZstd("the file ends inside a zstd frame")
            return False
        if self._frame is None:
            self._frame = self._new_frame()
        try:
            self._ready = memoryview(self._frame.decompress(piece))
        except self._failure as err:
            raise DamagedZstd(str(err)) from err
        if self._frame.eof:
            self._rest = self._frame.unused_data
            self._frame = None
        return True
