"""Datasets from hubs, pinned to what they were, as a local folder of data files.

<cache>/hub/<hub>/<org>--<name>/<revision>/<subset>/      <split>-<number>-<file name>
<cache>/hub/<hub>/<org>--<name>/<revision>/<subset>.json  where they come from
<cache>/hub/<hub>/<org>--<name>/revisions.json            what a branch or tag stood for last
"""

import difflib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from swiftcore.atomic import write_text_synced
from swiftcore.data.sources.cache import ContentCache, hubs_are_offline, place_key
from swiftcore.data.sources.download import Away, require_room
from swiftcore.data.sources.hub_clients import CLIENTS, Hub, HubClient, HubFile, Listing
from swiftcore.data.sources.hub_layout import choose_files, split_of
from swiftcore.errors import DataError, EnvironmentMissing, TransientError, UsageError
from swiftcore.progress import Progress, Silent

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PIN = re.compile(r"[0-9a-f]{7,64}")
_Answer = TypeVar("_Answer")
_ROLES = {"train": ("train",), "val": ("validation", "test"), "test": ("test", "validation")}


def fetch_hub(
    hub: Hub,
    dataset_id: str,
    *,
    revision: str | None = None,
    subset: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return a local folder with the data files of a hub dataset, fetched if they are not here.

    The files are named `<split>-<number>-<name>`; `hub_provenance` tells where they come from.

    Args:
        hub: `hf` or `ms`.
        dataset_id: `org/name`.
        revision: branch, tag or commit; None takes the main branch as it is now.
        subset: its configuration, or folder; None takes the default or only one.
        offline: ask nobody, also on if the environment says so; gives what was fetched before.
        progress: told the bytes that are here.

    Raises:
        DataError: the hub has no such dataset, revision or subset, or no file that can be read.
        EnvironmentMissing: offline and not fetched before, no permission, or no room.
        TransientError: the hub is away.
        UsageError: this is no name of a dataset.
    """
    where = _checked_name(hub, dataset_id, revision, subset)
    home = _home(hub, dataset_id)
    if offline or hubs_are_offline():
        return _fetched_before(home, revision, subset, where)
    with ContentCache().lock(place_key(f"{hub}::{dataset_id}")):
        wanted = _listed(hub, dataset_id, revision, subset, where)
        return wanted.folder if wanted.is_whole else wanted.bring_all(progress or Silent())


class HubStream:
    """A hub dataset whose files are fetched one after another, when they are wanted.

    Each file is checked and kept like those of `fetch_hub`, which later fetches only the others.

    Args:
        hub: `hf` or `ms`.
        dataset_id: `org/name`.
        revision: branch, tag or commit; None takes the main branch as it is now.
        subset: its configuration, or folder.
        offline: ask nobody; a dataset that was fetched whole before is there, and no other.

    Raises:
        SwiftError: as `fetch_hub`.
    """

    def __init__(
        self,
        hub: Hub,
        dataset_id: str,
        *,
        revision: str | None = None,
        subset: str | None = None,
        offline: bool = False,
    ) -> None:
        where = _checked_name(hub, dataset_id, revision, subset)
        self._key = place_key(f"{hub}::{dataset_id}")
        self._wanted: _WantedFiles | None = None
        if offline or hubs_are_offline():
            self._folder = _fetched_before(_home(hub, dataset_id), revision, subset, where)
        else:
            with ContentCache().lock(self._key):
                self._wanted = _listed(hub, dataset_id, revision, subset, where)
                self._folder = self._wanted.folder

    @property
    def names(self) -> list[str]:
        """The files as `<split>-<number>-<name>`, in reading order."""
        if self._wanted is not None and not self._wanted.is_whole:
            return list(self._wanted.places)
        return sorted(json.loads(_record_of(self._folder).read_text(encoding="utf-8"))["files"])

    @property
    def provenance(self) -> dict[str, str]:
        """Where the files come from: hub, dataset, revision, subset."""
        if self._wanted is not None and not self._wanted.is_whole:
            return self._wanted.provenance
        return hub_provenance(self._folder)

    def file(self, name: str) -> Path:
        """Return one file, fetched if it is not here.

        Raises:
            SwiftError: as `fetch_hub`.
        """
        if self._wanted is None:
            return self._folder / name
        with ContentCache().lock(self._key):
            return self._wanted.bring(name)


def hub_provenance(folder: Path) -> dict[str, str]:
    """Return where a folder from `fetch_hub` comes from: hub, dataset, revision, subset."""
    return json.loads(_record_of(folder).read_text(encoding="utf-8"))["provenance"]


def files_for_role(
    folder: Path, role: str, where: str, wanted: Sequence[str] = ()
) -> list[tuple[Path, str]]:
    """Return the files of the split that serves a role, with their names in the repository.

    Training takes `train`; validation takes `validation`, else `test`; testing the reverse. A
    dataset with one split serves every role with it.

    Args:
        folder: from `fetch_hub`.
        role: train, val or test.
        where: the entry, for messages.
        wanted: splits to take, whatever the role.

    Raises:
        DataError: no split fits, so the recipe must name files itself.
    """
    places: dict[str, str] = json.loads(_record_of(folder).read_text(encoding="utf-8"))["files"]
    splits: dict[str, list[str]] = {}
    for name in sorted(places):
        splits.setdefault(name.split("-")[0], []).append(name)
    chosen = [split for split in _ROLES[role] if split in splits][:1]
    # Names such as train_sft, as long as there is only one of the kind.
    kinds = [split for split in splits if split_of(split) == _ROLES[role][0]]
    chosen = chosen or (kinds if len(kinds) == 1 else [])
    if wanted:
        chosen = [split for split in wanted if split in splits]
    elif not chosen and len(splits) == 1:
        chosen = list(splits)
    if not chosen or len(chosen) < len(wanted):
        raise DataError(
            f"the dataset has no split for {role} rows",
            where=where,
            found=", ".join(splits),
            expected=" and ".join(wanted) or " or ".join(_ROLES[role]),
            do=f"name a split behind the dataset, for example :{next(iter(splits))}",
        )
    return [(folder / name, places[name]) for split in chosen for name in splits[split]]


def nearest_fetched(dataset_id: str) -> str | None:
    """Return the dataset in the cache whose name is most like this one."""
    known = {
        f"{hub.name}::{home.name.replace('--', '/')}"
        for hub in sorted((ContentCache().root / "hub").glob("*"))
        for home in sorted(hub.glob("*"))
    }
    names = {entry.partition("::")[2]: entry for entry in sorted(known)}
    close = difflib.get_close_matches(dataset_id, list(names), n=1, cutoff=0.5)
    return names[close[0]] if close else None


class _WantedFiles:
    """The files of one subset at one revision; used under the dataset's lock.

    They gather beside their final folder, and move there when all of them are here.
    """

    def __init__(
        self, client: HubClient, dataset_id: str, listing: Listing, subset: str | None, where: str
    ) -> None:
        self._client = client
        self._dataset_id = dataset_id
        self._listing = listing
        self._subset = subset
        self._where = where
        hub = where.partition("::")[0]
        self.folder = _home(hub, dataset_id) / listing.revision / _folder_name(subset)
        self._area = self.folder.with_name(f".{self.folder.name}.part")
        self._ready = self._area / "ready"
        self.provenance = {"hub": hub, "dataset": dataset_id} | listing.provenance
        self.provenance |= {"subset": subset} if subset else {}
        self.places: dict[str, str] = {}
        if not self.is_whole:
            self.places = self._chosen()

    @property
    def is_whole(self) -> bool:
        """True when all files are in their final folder."""
        return _record_of(self.folder).is_file()

    def bring(self, name: str) -> Path:
        """Return one file, fetched and checked."""
        if self.is_whole:
            return self.folder / name
        path = self._ready / name
        if not path.is_file():
            place = self.places[name]
            self._ready.mkdir(parents=True, exist_ok=True)
            require_room(self._area, self._size_bytes([name]), self._where)
            os.replace(self._get(place), path)
        return path

    def bring_all(self, progress: Progress) -> Path:
        """Fetch what is not here, and return the final folder."""
        self._ready.mkdir(parents=True, exist_ok=True)
        total = self._size_bytes(list(self.places))
        require_room(self._area, total, self._where)
        done = 0
        for name, place in self.places.items():
            self.bring(name)
            done += self._size_bytes([name])
            progress.update(done, total or None, f"{place} of {self._dataset_id}")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(self._ready, self.folder)
        shutil.rmtree(self._area, ignore_errors=True)
        unused = sorted(set(self._listing.files) - set(self.places.values()))
        record = {"provenance": self.provenance, "files": self.places, "unused": unused}
        write_text_synced(_record_of(self.folder), json.dumps(record, indent=1, sort_keys=True))
        return self.folder

    def _chosen(self) -> dict[str, str]:
        """Return the subset's files: name here, and place in the repository."""
        card, files = None, self._listing.files
        self._area.mkdir(parents=True, exist_ok=True)
        if "README.md" in files:
            card = self._get("README.md").read_text(encoding="utf-8", errors="replace")
        chosen = choose_files(list(files), card, self._subset, self._where)
        return {
            f"{_safe(split)}-{number:05d}-{PurePosixPath(path).name}": path
            for split, paths in chosen.items()
            for number, path in enumerate(paths)
        }

    def _size_bytes(self, names: Sequence[str]) -> int:
        return sum(self._listing.files[self.places[name]].size_bytes or 0 for name in names)

    def _get(self, place: str) -> Path:
        folder = self._area / "files"
        found = _patiently(
            self._client,
            lambda: self._client.fetch(self._dataset_id, self._listing, place, folder),
            self._where,
        )
        if not found.resolve().is_relative_to(self._area.resolve()):
            raise DataError(
                "a file of the dataset leads out of its folder", where=self._where, found=place
            )
        _verify(found, self._listing.files[place], self._where)
        return found


def _checked_name(hub: Hub, dataset_id: str, revision: str | None, subset: str | None) -> str:
    """Return the dataset as messages call it."""
    where = _shown(hub, dataset_id, revision, subset)
    if not _ID.fullmatch(dataset_id) or (hub == "ms" and "/" not in dataset_id):
        raise UsageError("this is no name of a dataset", where=where, expected="org/name")
    return where


def _listed(
    hub: Hub, dataset_id: str, revision: str | None, subset: str | None, where: str
) -> _WantedFiles:
    """Ask the hub what it has, pin it, and return the files of the subset."""
    client = CLIENTS[hub]()
    listing = _patiently(client, lambda: client.listing(dataset_id, revision), where)
    if not _PIN.fullmatch(listing.revision):
        raise DataError("the hub names no commit", where=where, found=listing.revision[:100])
    _note_revision(_home(hub, dataset_id), revision, listing.revision)
    return _WantedFiles(client, dataset_id, listing, subset, where)


def _verify(path: Path, file: HubFile, where: str) -> None:
    size = path.stat().st_size
    wrong = None
    if file.size_bytes is not None and size != file.size_bytes:
        wrong = (f"{size:,} bytes", f"{file.size_bytes:,} bytes")
    elif file.sha256 or file.git_sha1:
        digest = hashlib.sha256() if file.sha256 else hashlib.sha1(usedforsecurity=False)
        digest.update(b"" if file.sha256 else f"blob {size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
        expected = file.sha256 or file.git_sha1
        wrong = (digest.hexdigest(), expected) if digest.hexdigest() != expected else None
    if wrong is not None:
        path.unlink()
        raise DataError(
            "a file of the dataset is not the one the hub lists; it was thrown away",
            where=f"{where}: {file.path}",
            found=wrong[0],
            expected=wrong[1],
            do="run again; if it stays so, the hub's copy is damaged",
        )


def _patiently(client: HubClient, call: Callable[[], _Answer], where: str) -> _Answer:
    for wait in (*client.waits_seconds, None):
        try:
            return call()
        except Away as err:
            if wait is None:
                raise TransientError(
                    "the hub did not answer",
                    where=where,
                    found=err,
                    do="run the same command again later; SWIFTCORE_OFFLINE=1 takes what was "
                    "fetched before",
                ) from err
            time.sleep(wait)
    raise AssertionError("the last wait is None")


def _fetched_before(home: Path, revision: str | None, subset: str | None, where: str) -> Path:
    pinned = _revisions(home).get(revision or "", revision or "")
    folder = home / pinned / _folder_name(subset)
    if pinned and _record_of(folder).is_file():
        return folder
    there = sorted(path.stem for path in home.glob("*/*.json"))
    name = home.name.replace("--", "/")
    nearest = f"subsets {', '.join(there)} of it" if there else nearest_fetched(name)
    raise EnvironmentMissing(
        "the dataset was not fetched before, and this process is offline",
        where=where,
        found=f"no copy of it in {home.parent}",
        expected=f"perhaps {nearest}" if nearest else "a local file or folder",
        do="unset SWIFTCORE_OFFLINE and HF_HUB_OFFLINE, or download it and give the local folder",
    )


def _note_revision(home: Path, asked: str | None, found: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    known = _revisions(home) | {asked or "": found, found: found}
    write_text_synced(home / "revisions.json", json.dumps(known, indent=1, sort_keys=True))


def _revisions(home: Path) -> dict[str, str]:
    try:
        found = json.loads((home / "revisions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _home(hub: str, dataset_id: str) -> Path:
    return ContentCache().root / "hub" / hub / dataset_id.replace("/", "--")


def _record_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _folder_name(subset: str | None) -> str:
    return "default" if subset is None else f"subset-{_safe(subset)}"


def _safe(text: str) -> str:
    return re.sub(r"[^\w.]", "_", text)


def _shown(hub: str, dataset_id: str, revision: str | None, subset: str | None) -> str:
    name = f"{hub}::{dataset_id}" + (f":{subset}" if subset else "")
    return name + (f"@{revision}" if revision else "")
