"""What was fetched from elsewhere, kept by content in the user's cache folder.

    <cache>/content/<sha256[:2]>/<sha256>/<name>    a whole file, verified before it got this name
    <cache>/places/<key>.json                       what an address gave last, and its validators
    <cache>/parts/<key>                             a download under way, which the next try resumes
    <cache>/hub/<hub>/<org>--<name>/...             datasets from hubs

`SWIFTCORE_CACHE` moves it from `~/.cache/swiftcore`. Everything in it may be deleted at any time.
"""

import contextlib
import difflib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swiftcore.atomic import write_text_synced
from swiftcore.errors import EnvironmentMissing

_YES = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class Fetched:
    """A file or folder that came from elsewhere.

    Args:
        path: where it is now.
        name: how messages and reports name it.
        provenance: where exactly it came from: address, revision, digests.
        is_local: true for what was here and was not fetched.
        inner: its place within the folder that an entry names; empty for a single file.
    """

    path: Path
    name: str
    provenance: dict[str, str] = field(default_factory=dict)
    is_local: bool = False
    inner: str = ""


def cache_dir() -> Path:
    """Return the folder for what is fetched, whether it exists or not."""
    named = os.environ.get("SWIFTCORE_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "swiftcore"


def is_offline() -> bool:
    """Tell whether the environment forbids to reach any server."""
    return _is_set("SWIFTCORE_OFFLINE")


def hubs_are_offline() -> bool:
    """Tell whether the environment forbids to reach hubs; Hugging Face's own switch counts too."""
    return is_offline() or _is_set("HF_HUB_OFFLINE")


def place_key(address: str) -> str:
    """Return the name under which the cache keeps what it knows of an address."""
    return hashlib.sha256(address.encode()).hexdigest()


class ContentCache:
    """The cache folder, used by one download at a time for each address.

    Args:
        root: the folder; made when something is kept in it.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_dir()

    def part(self, key: str) -> Path:
        """Return where the unfinished download of an address is kept."""
        return self.root / "parts" / key

    def content(self, sha256: str, name: str) -> Path:
        """Return where a file of this content and name is kept."""
        return self.root / "content" / sha256[:2] / sha256 / name

    def find(self, sha256: str, name: str) -> Path | None:
        """Return the kept file of this content, if it is here."""
        path = self.content(sha256, name)
        return path if path.is_file() else None

    def keep(self, part: Path, sha256: str, name: str) -> Path:
        """Give a finished and verified download its place, in one step."""
        path = self.content(sha256, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, path)
        return path

    def note(self, key: str, facts: dict[str, str]) -> None:
        """Write down what an address gave."""
        path = self.root / "places" / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_synced(path, json.dumps(facts, indent=1, sort_keys=True))

    def noted(self, key: str) -> dict[str, str]:
        """Return what an address gave last; nothing when it was never fetched."""
        try:
            facts = json.loads((self.root / "places" / f"{key}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def nearest(self, address: str) -> str | None:
        """Return the kept address that looks most like this one."""
        known: list[str] = []
        for path in sorted((self.root / "places").glob("*.json")):
            facts = self.noted(path.stem)
            known += [facts["url"]] if "url" in facts else []
        return next(iter(difflib.get_close_matches(address, known, n=1)), None)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Let one process at a time fetch an address; the kernel frees it when that one dies.

        Raises:
            EnvironmentMissing: the cache folder can't be written.
        """
        path = self.root / "locks" / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as err:
            raise EnvironmentMissing(
                "the cache folder can't be written",
                where=self.root,
                found=err.strerror,
                do="set SWIFTCORE_CACHE to a folder with room",
            ) from err
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in _YES
