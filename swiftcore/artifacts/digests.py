"""Content digests of files and folders, hashed again only when the file may have changed.

The cache trusts an entry when device, inode, size, mtime and ctime are all as they were. An edit in
place that restores size and mtime still moves ctime, which no ordinary call can set, so it is seen.
An entry hashed within two seconds of the file's last change is not stored: a second edit inside the
clock's granularity would be invisible (the same "racy" rule that git follows for its index).
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from swiftcore.artifacts.fingerprint import sha256_text

_RACY_NANOSECONDS = 2_000_000_000
_CHUNK_BYTES = 1 << 20


class DigestCache:
    """sha256 of files, remembered in one SQLite file that several processes may share."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def sha256(self, file: Path) -> str:
        """Return the sha256 hex of a file's bytes."""
        if self._path is None:
            return sha256_file(file)
        before = file.stat()
        key = f"{before.st_dev}:{before.st_ino}"
        state = f"{before.st_size}:{before.st_mtime_ns}:{before.st_ctime_ns}"
        known = self._get(key, state)
        if known:
            return known
        digest = sha256_file(file)
        after = file.stat()
        unchanged = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
            before.st_size,
            before.st_mtime_ns,
            before.st_ctime_ns,
        )
        if unchanged and time.time_ns() - after.st_ctime_ns > _RACY_NANOSECONDS:
            self._put(key, state, digest)
        return digest

    def _get(self, key: str, state: str) -> str | None:
        if self._path is None or not self._path.exists():
            return None
        with closing(self._open()) as db:
            row = db.execute("SELECT sha256 FROM digests WHERE key=? AND state=?", (key, state))
            found = row.fetchone()
        return found[0] if found else None

    def _put(self, key: str, state: str, digest: str) -> None:
        with closing(self._open()) as db, db:
            db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (key, state, digest))

    def _open(self) -> sqlite3.Connection:
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=30)
        db.execute(
            "CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, state TEXT, sha256 TEXT)"
        )
        return db


def sha256_file(file: Path) -> str:
    """Return the sha256 hex of a file's bytes, read now."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def files_under(folder: Path) -> list[Path]:
    """Return all regular files below a folder, sorted by relative path; links are not followed."""
    found = []
    for base, _, names in os.walk(folder, followlinks=False):
        found += [Path(base) / name for name in names]
    return sorted(
        (path for path in found if path.is_file() and not path.is_symlink()),
        key=lambda path: path.relative_to(folder).as_posix(),
    )


def tree_digest(entries: Iterable[tuple[str, str]]) -> str:
    """Return one digest for (relative path, sha256) pairs, whatever their order."""
    return sha256_text("\n".join(f"{sha}  {path}" for path, sha in sorted(entries)))


def folder_digest(folder: Path, cache: DigestCache, *, only: Iterable[str] | None = None) -> str:
    """Return the digest of a folder's content, or of the named files in it that exist."""
    if only is None:
        files = files_under(folder)
    else:
        files = [folder / name for name in only if (folder / name).is_file()]
    return tree_digest((path.relative_to(folder).as_posix(), cache.sha256(path)) for path in files)
