"""Sources that need what this library does not import, found by the entry points `swift.sources`.

A scheme such as `mlflow` names a function `(address) -> (path, provenance)`. The name `dvc` is for
a function `(path) -> (path, provenance) | None` that brings a file DVC tracks and knows its origin.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from swiftcore.data.sources.cache import Fetched
from swiftcore.data.sources.spec import exists
from swiftcore.errors import EnvironmentMissing

GROUP = "swift.sources"
TRACKER = "dvc"

AddressSource = Callable[[str], tuple[Path, dict[str, str]]]
Tracker = Callable[[Path], tuple[Path, dict[str, str]] | None]

_MAX_LOCK_BYTES = 64 * 2**20


def fetch_by_plugin(scheme: str, address: str) -> Fetched:
    """Return the file or folder behind an address whose scheme a plug-in knows.

    Raises:
        EnvironmentMissing: no installed package knows the scheme.
    """
    for point in entry_points(group=GROUP, name=scheme):
        resolve: AddressSource = point.load()
        path, provenance = resolve(address)
        return Fetched(path, address, provenance)
    known = sorted({point.name for point in entry_points(group=GROUP)} - {TRACKER})
    raise EnvironmentMissing(
        f"nothing here can read {scheme}:/ sources",
        where=address,
        found="sources for: " + ", ".join(["https", "http", "s3", *known]),
        expected="a path, hf::org/name, ms::org/name or one of these addresses",
        do="correct the scheme, or install the package that knows it (make install brings mlflow)",
    )


def tracked(path: Path) -> tuple[Path, dict[str, str]] | None:
    """Return a path that DVC tracks, fetched if it is missing, and its origin; None for others.

    Nothing of DVC is imported before a pointer of it is seen.
    """
    if not _has_pointer(path):
        return None
    for point in entry_points(group=GROUP, name=TRACKER):
        ask: Tracker = point.load()
        return ask(path)
    return None


def _has_pointer(path: Path) -> bool:
    """Tell whether `path.dvc`, a parent's `.dvc`, or an output in a `dvc.lock` may stand for it."""
    whole = path.absolute()
    for place in (whole, *whole.parents):
        if place.name and exists(f"{place}.dvc") and Path(f"{place}.dvc").is_file():
            return True
        if exists(f"{place}/.dvc"):
            return _lock_names(place, whole)
    return False


def _lock_names(root: Path, path: Path) -> bool:
    """Look for the path in the pipelines' lock files between it and the repository's root."""
    for folder in path.parents:
        lock = folder / "dvc.lock"
        if lock.is_file() and lock.stat().st_size <= _MAX_LOCK_BYTES:
            text = lock.read_text(encoding="utf-8", errors="replace")
            inside = path.relative_to(folder)
            places = (inside, *inside.parents)
            if any(f"path: {place.as_posix()}\n" in text for place in places if place.name):
                return True
        if folder == root:
            break
    return False
