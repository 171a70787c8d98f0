"""Content digests of files and folders, hashed again only when the file may have changed.

The cache trusts an entry when device, inode, size, mtime and ctime are all as they were. An edit in
place that restores size and mtime still moves ctime, which no ordinary call can set, so it is seen.
An entry hashed within two seconds of the file's last change is not stored: a second edit inside the
clock's granularity would be invisible (the same "racy" rule that git follows for its index).

The cache only saves time. When its file is locked, damaged or on a full disk, files are read again.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

_RACY_NANOSECONDS = 2_000_000_000
_CHUNK_BYTES = 1 << 20
_SCHEMA = "CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, state TEXT, sha256 TEXT)"


class DigestCache:
    """sha256 of files, remembered in one SQLite file that several processes may share.

    Args:
        path: the SQLite file; None remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def sha256(self, file: Path) -> str:
        """Return the sha256 hex of a file's bytes."""
        if self._path is None:
            return sha256_file(file)
        before = file.stat()
        key, state = f"{before.st_dev}:{before.st_ino}", _state(before)
        known = self._get(key, state)
        if known:
            return known
        digest = sha256_file(file)
        after = file.stat()
        settled = time.time_ns() - after.st_ctime_ns > _RACY_NANOSECONDS
        if settled and _state(after) == state:
            self._put(key, state, digest)
        return digest

    def _get(self, key: str, state: str) -> str | None:
        assert self._path is not None
        if not self._path.exists():
            return None
        row = self._query("SELECT sha256 FROM digests WHERE key=? AND state=?", key, state)
        return row[0] if row else None

    def _put(self, key: str, state: str, digest: str) -> None:
        self._query("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", key, state, digest)

    def _query(self, sql: str, *values: str) -> tuple[str, ...] | None:
        assert self._path is not None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as db, db:
                db.execute(_SCHEMA)
                return db.execute(sql, values).fetchone()
        except (OSError, sqlite3.OperationalError):  # locked, read-only or no room
            return None
        except sqlite3.DatabaseError:  # not an SQLite file any more: start a new one
            self._path.unlink(missing_ok=True)
            return None


def _state(stat: os.stat_result) -> str:
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def sha256_file(file: Path) -> str:
    """Return the sha256 hex of a file's bytes, read now."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def files_under(folder: Path) -> list[Path]:
    """Return all regular files below a folder, sorted by relative path; links are not followed."""
    return [path for path in entries_under(folder) if path.is_file() and not path.is_symlink()]


def entries_under(folder: Path) -> list[Path]:
    """Return everything below a folder that is no plain folder (links too), sorted by path."""
    found = []
    for base, folders, names in os.walk(folder, followlinks=False):
        found += [Path(base) / name for name in names]
        found += [path for name in folders if (path := Path(base) / name).is_symlink()]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def tree_digest(entries: Iterable[tuple[str, str]]) -> str:
    """Return one digest for (relative path, sha256) pairs, whatever their order."""
    lines = "".join(f"{sha}  {path}\0" for path, sha in sorted(entries))  # no path holds a NUL
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def folder_digest(folder: Path, cache: DigestCache, *, only: Iterable[str] | None = None) -> str:
    """Return the digest of what a reader of a user's folder sees.

    Links are followed, because the cache of the Hugging Face hub is made of them. Hidden entries
    don't count: they hold the bookkeeping of downloads and of git, times included.

    Args:
        folder: what to read.
        cache: digests of files that have not changed.
        only: relative names of the files that count; names that don't exist are left out.
    """
    names = _visible_names(folder) if only is None else [n for n in only if (folder / n).is_file()]
    return tree_digest((name, cache.sha256(folder / name)) for name in names)


def _visible_names(folder: Path) -> list[str]:
    names: list[str] = []
    entered: set[str] = set()
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in entered:  # a link back up would be walked for ever
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = (Path(base) / name for name in files if not name.startswith("."))
        names += [path.relative_to(folder).as_posix() for path in visible if path.is_file()]
    return names
