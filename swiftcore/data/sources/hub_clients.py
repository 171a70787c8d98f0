"""The two hubs through their own client libraries: what a repository holds, and its files.

Only files are fetched. Nothing of a repository is imported or run, whatever it asks for.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from swiftcore.data.sources.download import Away
from swiftcore.errors import DataError, EnvironmentMissing, SwiftError, UsageError

Hub = Literal["hf", "ms"]
TIMEOUT_SECONDS = 20.0

_BUSY = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Args:
        path: its place in the repository.
        size_bytes: its length, if the hub says so.
        sha256: digest of its content, if the hub says so.
        git_sha1: id of its git blob, for small files that have no sha256.
    """

    path: str
    size_bytes: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Listing:
    """A repository at one revision.

    Args:
        revision: what the listing is pinned to: a commit, or the listing's own digest.
        fetch_revision: what files are asked for by.
        files: all of them, by path.
        provenance: what to record about the revision.
    """

    revision: str
    fetch_revision: str
    files: dict[str, HubFile]
    provenance: dict[str, str] = field(default_factory=dict)


class HubClient(Protocol):
    """What is asked of a hub; `waits_seconds` says how long to wait before each further try."""

    waits_seconds: tuple[float, ...]

    def listing(self, dataset_id: str, revision: str | None) -> Listing:
        """Return a dataset's files at a revision."""
        ...

    def fetch(self, dataset_id: str, listing: Listing, path: str, folder: Path) -> Path:
        """Bring one file below a folder, resumed if part of it is there, and return its path."""
        ...


class HuggingFace:
    """The Hugging Face hub, or another one at `HF_ENDPOINT`."""

    waits_seconds = (0.5, 1.0)

    def __init__(self) -> None:
        with _installed("huggingface_hub"):
            import huggingface_hub
        self._library = huggingface_hub
        self._endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        self._api = huggingface_hub.HfApi(endpoint=self._endpoint)

    def listing(self, dataset_id: str, revision: str | None) -> Listing:
        """Return a dataset's files at a revision; its commit is the pin."""
        with _failures_named(f"hf::{dataset_id}", revision, self._api.endpoint):
            info = self._api.dataset_info(
                dataset_id, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
            )
        files = {
            item.rfilename: HubFile(
                item.rfilename,
                item.size,
                item.lfs.sha256 if item.lfs else None,
                None if item.lfs else item.blob_id,
            )
            for item in info.siblings or []
        }
        commit = str(info.sha)
        return Listing(commit, commit, files, {"revision": commit})

    def fetch(self, dataset_id: str, listing: Listing, path: str, folder: Path) -> Path:
        """Bring one file below a folder."""
        with _failures_named(f"hf::{dataset_id}", listing.revision, self._api.endpoint):
            found = self._library.hf_hub_download(
                dataset_id,
                path,
                repo_type="dataset",
                revision=listing.fetch_revision,
                local_dir=folder,
                endpoint=self._endpoint,
                etag_timeout=TIMEOUT_SECONDS,
                tqdm_class=_silent_bar(),
            )
        return Path(found)


class ModelScope:
    """The ModelScope hub, or another at `MODELSCOPE_ENDPOINT`; its client tries again itself."""

    waits_seconds = ()

    def __init__(self) -> None:
        with _installed("modelscope"):
            from modelscope_hub import HubApi
        # Its news of each page and retry would stand between ours.
        logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
        self._api = HubApi(endpoint=os.environ.get("MODELSCOPE_ENDPOINT") or None)

    def listing(self, dataset_id: str, revision: str | None) -> Listing:
        """Return a dataset's files at a revision.

        The hub names no commit for a branch, so the pin is the digest of all paths and digests;
        a file that changes after the listing is refused by its own digest.
        """
        with _failures_named(f"ms::{dataset_id}", revision, "ModelScope"):
            items = self._api.list_repo_files(dataset_id, "dataset", revision=revision)
        files = {
            item.path: HubFile(item.path, item.size, item.sha256 or None)
            for item in items
            if item.type != "tree" and item.path
        }
        lines = [
            f"{path} {file.sha256} {file.size_bytes}\n" for path, file in sorted(files.items())
        ]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        asked = revision or "master"
        return Listing(digest, asked, files, {"revision": asked, "listing_sha256": digest})

    def fetch(self, dataset_id: str, listing: Listing, path: str, folder: Path) -> Path:
        """Bring one file below a folder."""
        file = listing.files[path]
        with _failures_named(f"ms::{dataset_id}", listing.fetch_revision, "ModelScope"):
            found = self._api.download_file(
                dataset_id,
                "dataset",
                path,
                revision=listing.fetch_revision,
                local_dir=folder,
                expected_sha256=file.sha256,
                file_size=file.size_bytes,
            )
        return Path(found)


CLIENTS: dict[Hub, Callable[[], HubClient]] = {"hf": HuggingFace, "ms": ModelScope}


def _silent_bar() -> Any:
    from tqdm.auto import tqdm

    class Silent(tqdm):
        """No bar: progress is told elsewhere."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **(options | {"disable": True}))

    return Silent


@contextlib.contextmanager
def _installed(package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as err:
        raise EnvironmentMissing(
            f"this hub needs the package {package}, which is not installed",
            found=err,
            do="pip install 'swiftcore[sources]'",
        ) from err


@contextlib.contextmanager
def _failures_named(where: str, revision: str | None, hub: str) -> Iterator[None]:
    """Turn what the client libraries raise into our errors, by what is said and not by whom."""
    try:
        yield
    except (SwiftError, AssertionError):
        raise
    except Exception as err:
        known = _known_failure(err, where, revision, hub)
        if known is None:
            raise
        raise known from err


def _known_failure(
    err: Exception, where: str, revision: str | None, hub: str
) -> SwiftError | Away | None:
    names = {kind.__name__ for kind in type(err).__mro__}
    status = getattr(getattr(err, "response", None), "status_code", None)
    found = " ".join(str(err).split())[:300] or type(err).__name__
    if names & {"GatedRepoError", "PermissionDeniedError", "AuthenticationError"}:
        return EnvironmentMissing(
            "the hub gives this dataset only to those it knows",
            where=where,
            found=found,
            do="accept its terms on the hub's page and log in (hf auth login, modelscope login)",
        )
    if "RevisionNotFoundError" in names:
        problem, expected = f"the dataset has no revision {revision}", "a branch, tag or commit"
        return DataError(problem, where=where, expected=expected, do="correct what follows the @")
    if names & {"RepositoryNotFoundError", "EntryNotFoundError", "NotExistError"}:
        return DataError(
            "the hub has no such dataset, or hides it",
            where=where,
            found=f"asked {hub}",
            expected="org/name of a public dataset, or one this login may read",
            do="correct the name; a local file or folder must exist under exactly this path",
        )
    if names & {"HFValidationError", "InvalidParameter"}:
        return UsageError("this is no name of a dataset", where=where, found=found)
    if names & {"FileIntegrityError"}:
        return DataError(
            "a file of the dataset is not the one the hub lists",
            where=where,
            found=found,
            do="run again; if it stays so, the hub's copy is damaged",
        )
    if "OfflineModeIsEnabled" in names:
        return EnvironmentMissing(
            "the hub's client is offline", where=where, do="unset HF_HUB_OFFLINE"
        )
    if status in _BUSY or names & {"TransportError", "ConnectionError", "TimeoutError"}:
        return Away(found)
    if names & {"ServerError", "RateLimitError", "LocalEntryNotFoundError", "FileDownloadError"}:
        return Away(found)
    if status is not None:
        return DataError("the hub refuses the dataset", where=where, found=found)
    return None
