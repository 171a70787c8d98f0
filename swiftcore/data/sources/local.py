"""From dataset entries to the files they stand for, wherever those are."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from swiftcore.data.readers.files import data_suffix
from swiftcore.data.sources.cache import Fetched, hubs_are_offline
from swiftcore.data.sources.documents import is_document
from swiftcore.data.sources.folders import files_in_folder, files_of_pattern, nearest
from swiftcore.data.sources.plugins import fetch_by_plugin, tracked
from swiftcore.data.sources.registered import Registry
from swiftcore.data.sources.row_options import RowOptions
from swiftcore.data.sources.spec import DatasetSpec, parse_dataset_spec
from swiftcore.errors import DataError, EnvironmentMissing, UsageError
from swiftcore.progress import Progress
from swiftcore.recipe.sections import DataSection

Role = Literal["train", "val", "test"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class SourceFile:
    """One file that shapes a dataset.

    Args:
        role: split its rows belong to, before a validation split.
        spec: entry of the recipe it comes from.
        path: the file.
        name: the file as the recipe writes it, for messages and reports.
        provenance: where exactly it came from, as far as more is known than its path: address and
            ETag, hub and commit, DVC revision, digests.
        options: what a registered dataset does to its raw rows; false where there is nothing.
        is_local: true for a file that was not fetched, so that DVC may know more of it.
        document: its place within its entry, where it is a document and no data file; else None.
    """

    role: Role
    spec: DatasetSpec
    path: Path
    name: str
    provenance: dict[str, str] = field(default_factory=dict)
    options: RowOptions = field(default_factory=RowOptions)
    is_local: bool = False
    document: str | None = None

    @property
    def is_registered(self) -> bool:
        """True when the entry is the name of a registered dataset."""
        return "registered_by" in self.provenance


def source_files(
    section: DataSection,
    *,
    registry: Registry | None = None,
    trace: bool = True,
    progress: Progress | None = None,
) -> list[SourceFile]:
    """List every file an ingest reads, in reading order: the content its identity depends on.

    What is not on this machine is fetched into the cache, unless the environment forbids it.

    Args:
        section: the recipe's data section.
        registry: datasets that entries may name, from `load_registered`.
        trace: ask DVC for the origin of files it tracks, which reads them whole.
        progress: told what is fetched.

    Raises:
        UsageError: an entry can't be parsed, or a folder mixes training and held-out files.
        DataError: a path does not exist, or a folder has no data file.
        EnvironmentMissing: a source can't be reached from here, or may not be.
        TransientError: a hub or server is away.
    """
    roles: list[tuple[Role, list[str]]] = [
        ("train", section.dataset),
        ("val", section.val_dataset),
        ("test", section.test_dataset),
    ]
    files: list[SourceFile] = []
    documents = section.documents is not None
    for role, entries in roles:
        for spec in map(parse_dataset_spec, entries):
            known = registry.resolve(spec) if registry is not None else []
            if not known:
                found = spec_files(spec, role, progress=progress, documents=documents)
                files += _of_entry(section, role, spec, found)
            for place, dataset in known:
                found = spec_files(
                    place, role, splits=dataset.split, progress=progress, documents=documents
                )
                files += _of_entry(section, role, spec, found, dataset.origin, dataset.options)
    return traced(files) if trace else files


def traced(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return the files with what DVC knows of those it tracks; it reads these whole."""
    found = []
    for file in files:
        origin = tracked(file.path) if file.is_local else None
        known = file.provenance if origin is None else origin[1] | file.provenance
        found.append(replace(file, provenance=known))
    return found


def _of_entry(
    section: DataSection,
    role: Role,
    spec: DatasetSpec,
    found: Sequence[Fetched],
    origin: dict[str, str] | None = None,
    options: RowOptions | None = None,
) -> Iterator[SourceFile]:
    # Not `options or`: options that leave rows as they are may still name columns.
    options = RowOptions() if options is None else options
    for each in found:
        known = each.provenance | (origin or {})
        inner = (each.inner or each.path.name) if is_document(each.path, section, options) else None
        yield SourceFile(role, spec, each.path, each.name, known, options, each.is_local, inner)


def spec_files(
    spec: DatasetSpec,
    role: Role = "train",
    *,
    splits: Sequence[str] = (),
    progress: Progress | None = None,
    documents: bool = False,
) -> list[Fetched]:
    """Return the files one entry stands for, fetched if they are not on this machine.

    Args:
        spec: the entry.
        role: what its rows are for; picks the split of a dataset that has several.
        splits: splits of a hub dataset to take instead.
        progress: told what is fetched.
        documents: take documents and source code of folders and patterns too.

    Raises:
        SwiftError: as `source_files`.
    """
    if spec.prefix is not None and spec.hub is None:
        raise UsageError(
            "a dataset entry names an unknown hub",
            where=repr(spec.text),
            found=f"{spec.prefix}::",
            expected="hf:: or ms::, or a path without prefix",
            do="correct or remove the prefix",
        )
    if spec.scheme is not None:
        return _at_address(spec, role, progress)
    if spec.is_local:
        return list(_local_files(spec, role, documents))
    if spec.is_pattern:
        _require_no_subsets(spec, "a pattern")
        base, paths = files_of_pattern(spec, role, documents)
        return [_local_file(p, p.as_posix(), p.relative_to(base).as_posix()) for p in paths]
    pulled = tracked(Path(spec.path).expanduser())
    if pulled is not None and spec.is_local:
        return list(_local_files(spec, role, documents))
    if _names_hub(spec):
        return _on_hub(spec, role, splits, progress)
    raise _not_here(spec)


def _local_files(spec: DatasetSpec, role: Role, documents: bool) -> Iterator[Fetched]:
    root = Path(spec.path).expanduser()
    if not root.is_dir():
        _require_no_subsets(spec, "a single file")
        yield _local_file(root, spec.path)
        return
    for path in files_in_folder(root, spec, role, documents):
        inner = path.relative_to(root).as_posix()
        yield _local_file(path, f"{spec.path.rstrip('/')}/{inner}", inner)


def _local_file(path: Path, name: str, inner: str = "") -> Fetched:
    return Fetched(path, name, is_local=True, inner=inner)


def _at_address(spec: DatasetSpec, role: Role, progress: Progress | None) -> list[Fetched]:
    if spec.scheme in ("http", "https"):
        from swiftcore.data.sources.fetch import fetch_url

        return [fetch_url(spec.path, sha256=spec.sha256, progress=progress)]
    if spec.scheme == "s3":
        from swiftcore.data.sources.s3 import fetch_s3

        return fetch_s3(spec.path, sha256=spec.sha256, progress=progress)
    assert spec.scheme is not None
    found = fetch_by_plugin(spec.scheme, spec.path)
    if not found.path.is_dir():
        return [found]
    return [
        Fetched(path, f"{found.name}/{path.relative_to(found.path).as_posix()}", found.provenance)
        for path in files_in_folder(found.path, spec, role)
    ]


def _on_hub(
    spec: DatasetSpec, role: Role, splits: Sequence[str], progress: Progress | None
) -> list[Fetched]:
    from swiftcore.data.sources.hub import fetch_hub, files_for_role, hub_provenance

    hub = spec.hub or "hf"
    if spec.hub is None and hubs_are_offline():
        raise _not_here(spec)
    files: list[Fetched] = []
    for subset in spec.subsets or [None]:
        folder = fetch_hub(hub, spec.path, revision=spec.revision, subset=subset, progress=progress)
        origin = hub_provenance(folder)
        for path, place in files_for_role(folder, role, repr(spec.text), splits):
            files.append(Fetched(path, f"{hub}::{spec.path}/{place}", origin | {"file": place}))
    return files


def _names_hub(spec: DatasetSpec) -> bool:
    """Tell whether an entry that is not here may be asked for at a hub.

    A hub id is `org/name`; anything that starts or ends like a file is a path, never an id, and so
    is what looks like a misspelt folder of this place. Where the entry names the hub, only the
    first rule counts, and the organisation may be missing, as in `hf::squad`.
    """
    path = spec.path
    if path.startswith((".", "/", "~")) or "\\" in path or path.count("/") > 1:
        return False
    if data_suffix(Path(path)) is not None:
        return False
    if spec.hub is not None:
        return True
    if not _HUB_ID.fullmatch(path):
        return False
    here = [place.name for place in Path().iterdir() if place.is_dir()]
    return not difflib.get_close_matches(path.split("/")[0], here, n=1, cutoff=0.75)


def _not_here(spec: DatasetSpec) -> DataError | EnvironmentMissing:
    close = nearest(Path(spec.path).expanduser())
    if _names_hub(spec):
        return EnvironmentMissing(
            "the dataset is not on this machine, and this process is offline",
            where=repr(spec.text),
            found=f"no file or folder {spec.path}; as a hub id it may not be asked for",
            expected=close,
            do="correct the path; or unset SWIFTCORE_OFFLINE and HF_HUB_OFFLINE; or download it "
            "and give the local folder",
        )
    return DataError(
        "the dataset does not exist",
        where=repr(spec.text),
        found=f"no file or folder {spec.path}",
        expected=close,
        do="correct the path; relative paths start at the folder the command runs in; a hub's "
        "dataset is written hf::org/name or ms::org/name",
    )


def _require_no_subsets(spec: DatasetSpec, kind: str) -> None:
    if spec.subsets:
        raise UsageError(
            f"{kind} has no subsets",
            where=repr(spec.text),
            found=":" + "/".join(spec.subsets),
            do="remove the subset, or give the folder that holds it",
        )
