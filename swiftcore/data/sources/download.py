"""Downloads that are resumed, retried while it makes sense, verified, and only then visible."""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from swiftcore.data.sources.cache import ContentCache
from swiftcore.errors import DataError, EnvironmentMissing, TransientError, UsageError
from swiftcore.progress import Progress, Silent

TIMEOUT_SECONDS = 30.0
MAX_BYTES_VARIABLE = "SWIFTCORE_MAX_DOWNLOAD_BYTES"

_DEFAULT_MAX_BYTES = 200 * 2**30
_BLOCK_BYTES = 2**18
_WAITS_SECONDS = (0.5, 1.0, 2.0)
# A try that got this far was worth another one: only tries without progress are counted.
_PROGRESS_BYTES = 2**20
# Slower than this for a minute is a connection that will not finish.
_MIN_BYTES_PER_SECOND = 1024
_SLOW_SECONDS = 60.0
_FREE_BYTES = 256 * 2**20


class Away(Exception):
    """A failure that may pass: no connection, a timeout, a server that is busy."""


class Readable(Protocol):
    """The body of an answer."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes, b"" at the end."""
        ...

    def close(self) -> None:
        """Drop the connection."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a server gives when it is asked for a file from some byte on.

    Args:
        body: the bytes.
        start: place of the first of them in the file: what was asked for, or 0.
        size_bytes: length of the whole file, if the server says so.
        validator: changes when the file's content does; "" when the server has none.
        digests: `{"sha256" or "md5": hex}` of the whole file, as far as the server says so.
    """

    body: Readable
    start: int = 0
    size_bytes: int | None = None
    validator: str = ""
    digests: dict[str, str] = field(default_factory=dict)


Ask = Callable[[int, str], Answer]


def download(
    ask: Ask,
    cache: ContentCache,
    key: str,
    source: str,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> tuple[Path, str]:
    """Bring a file whole into the cache's parts folder and return it with its sha256.

    Args:
        ask: opens the file from a byte on, if its validator still is the given one; raises `Away`
            for failures that may pass.
        cache: where unfinished downloads are kept.
        key: the address's name there.
        source: the address, for messages.
        sha256: digest the file must have.
        progress: told the bytes that are here.

    Raises:
        TransientError: the server stayed away; what is here already is resumed next time.
        DataError: the file is not what the server or the caller says it is.
        EnvironmentMissing: it is larger than allowed, or the disk has no room.
    """
    part = cache.part(key)
    part.parent.mkdir(parents=True, exist_ok=True)
    stated = _until_whole(ask, part, source, progress or Silent())
    found = _file_digests(part)
    for algorithm, digest in (stated | ({"sha256": sha256} if sha256 else {})).items():
        if found[algorithm] != digest:
            _forget(part)
            raise DataError(
                "the fetched file is not the expected one; it was thrown away",
                where=source,
                found=f"{algorithm} {found[algorithm]}",
                expected=f"{algorithm} {digest}",
                do="correct the digest in the recipe if the file was meant to change",
            )
    _state_of(part).unlink(missing_ok=True)
    return part, found["sha256"]


def _until_whole(ask: Ask, part: Path, source: str, progress: Progress) -> dict[str, str]:
    """Try until the file is here, and return the digests that the server states."""
    tries = 0
    while True:
        before = _size_bytes(part)
        try:
            return _one_try(ask, part, source, progress)
        except OSError as err:
            raise _disk_problem(err, part) from err
        except Away as err:
            tries = 0 if _size_bytes(part) - before >= _PROGRESS_BYTES else tries + 1
            if tries > len(_WAITS_SECONDS):
                raise TransientError(
                    "the source did not answer, or broke off",
                    where=source,
                    found=err,
                    do="run the same command again later; it goes on where it stopped",
                ) from err
            time.sleep(_WAITS_SECONDS[max(tries - 1, 0)])


def _size_bytes(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _one_try(ask: Ask, part: Path, source: str, progress: Progress) -> dict[str, str]:
    have, validator = _resume_point(part)
    answer = ask(have, validator)
    with contextlib.closing(answer.body):
        if answer.start not in (0, have) or (answer.start and answer.validator != validator):
            _forget(part)
            raise Away("the server sent another part of the file than asked for")
        limit = _room_bytes(part, source, answer)
        _state_of(part).write_text(json.dumps(answer.validator), encoding="utf-8")
        with part.open("r+b" if answer.start else "wb") as out:
            out.seek(answer.start)
            out.truncate()
            size = _copy(answer, out, limit, source, progress)
            out.flush()
            os.fsync(out.fileno())
    if answer.size_bytes is not None and size != answer.size_bytes:
        if size > answer.size_bytes:
            _forget(part)
        raise Away(f"{size:,} of {answer.size_bytes:,} bytes came")
    return answer.digests


def _copy(answer: Answer, out: IO[bytes], limit: int, source: str, progress: Progress) -> int:
    size, started = answer.start, time.monotonic()
    while block := _read(answer.body):
        size += len(block)
        if size > limit:
            raise _too_large(source, size, limit)
        out.write(block)
        progress.update(size, answer.size_bytes, f"{size / 2**20:,.1f} MiB of {source}")
        seconds = time.monotonic() - started
        if seconds > _SLOW_SECONDS and (size - answer.start) / seconds < _MIN_BYTES_PER_SECOND:
            raise Away(f"less than {_MIN_BYTES_PER_SECOND} bytes a second came")
    return size


def _read(body: Readable) -> bytes:
    try:
        return body.read(_BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as err:
        raise Away(str(err) or type(err).__name__) from err


def _resume_point(part: Path) -> tuple[int, str]:
    """Return how much is here and the validator it belongs to; nothing without a validator."""
    try:
        validator = json.loads(_state_of(part).read_text(encoding="utf-8"))
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    return (have, validator) if isinstance(validator, str) and validator else (0, "")


def require_room(folder: Path, size_bytes: int, source: str) -> None:
    """Check that so many bytes may be fetched, and fit on the disk of a folder.

    Raises:
        EnvironmentMissing: they are more than allowed, or the disk has no room for them.
        UsageError: the limit in the environment is no number.
    """
    limit = _max_bytes()
    if size_bytes > limit:
        raise _too_large(source, size_bytes, limit)
    free = _free_bytes(folder)
    if size_bytes > free:
        raise EnvironmentMissing(
            "the disk has no room for what is fetched",
            where=folder,
            found=f"{free:,} bytes free",
            expected=f"{size_bytes:,} bytes for {source}",
            do="free space, or set SWIFTCORE_CACHE to a folder with room",
        )


def _room_bytes(part: Path, source: str, answer: Answer) -> int:
    if answer.size_bytes is None:
        return min(_max_bytes(), answer.start + _free_bytes(part.parent))
    require_room(part.parent, answer.size_bytes - answer.start, source)
    return _max_bytes()


def _free_bytes(folder: Path) -> int:
    return max(shutil.disk_usage(folder).free - _FREE_BYTES, 0)


def _max_bytes() -> int:
    text = os.environ.get(MAX_BYTES_VARIABLE, "").strip() or str(_DEFAULT_MAX_BYTES)
    if not text.isdecimal():
        raise UsageError(
            "a limit is no number of bytes",
            where=MAX_BYTES_VARIABLE,
            found=text,
            do=f"set {MAX_BYTES_VARIABLE} to a whole number, or unset it",
        )
    return int(text)


def _too_large(source: str, size_bytes: int, limit: int) -> EnvironmentMissing:
    return EnvironmentMissing(
        "the file is larger than allowed",
        where=source,
        found=f"{size_bytes:,} bytes",
        expected=f"at most {limit:,} bytes",
        do=f"raise {MAX_BYTES_VARIABLE}, or fetch it yourself and give the local file",
    )


def _disk_problem(err: OSError, part: Path) -> EnvironmentMissing:
    return EnvironmentMissing(
        "the cache folder can't be written",
        where=part.parent,
        found=err.strerror or err,
        do="free space or mend the permissions, or set SWIFTCORE_CACHE to another folder",
    )


def _file_digests(path: Path) -> dict[str, str]:
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            for digest in digests.values():
                digest.update(block)
    return {algorithm: digest.hexdigest() for algorithm, digest in digests.items()}


def _state_of(part: Path) -> Path:
    return part.with_name(part.name + ".state")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_of(part).unlink(missing_ok=True)
