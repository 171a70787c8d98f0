"""Datasets on hubs as files to read: fetched by the hub layer, narrowed to one split."""

from pathlib import Path
from typing import Literal, Protocol

from swiftcore.data.documents.config import HuggingFaceSource
from swiftcore.data.documents.folders import FoundFile
from swiftcore.data.readers.files import data_suffix
from swiftcore.errors import DataError

_SYNONYMS = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation"}


class Fetch(Protocol):
    """Brings a dataset from a hub into a local folder (`swiftcore.data.sources.hub.fetch_hub`)."""

    def __call__(
        self,
        hub: Literal["hf", "ms"],
        dataset_id: str,
        *,
        revision: str | None,
        subset: str | None,
        offline: bool,
    ) -> Path:
        """Return a folder with data files named `<split>-<number>-<name>`."""
        ...


def hub_layer() -> Fetch:
    """Return the function that fetches for real."""
    from swiftcore.data.sources.hub import fetch_hub

    return fetch_hub


def hub_files(source: HuggingFaceSource, fetch: Fetch) -> tuple[list[FoundFile], dict[str, str]]:
    """Return the data files of the split asked for, and where they come from, pinned.

    Raises:
        DataError: there is none of this split.
        SwiftError: whatever fetching raises.
    """
    folder = fetch(
        source.hub,
        source.dataset_id,
        revision=source.revision,
        subset=source.subset,
        offline=source.offline,
    )
    paths = [path for path in sorted(folder.iterdir()) if data_suffix(path) is not None]
    splits = {path: path.name.partition("-")[0] for path in paths}
    wanted = source.split.lower()
    wanted = _SYNONYMS.get(wanted, wanted)
    chosen = [path for path in paths if splits[path] == wanted]
    if not chosen:
        raise DataError(
            "the hub dataset has no such split",
            where=source.name,
            found=f"split {source.split}",
            expected=", ".join(sorted(set(splits.values()))) or "a data file",
            do="name the split with --hf-split",
        )
    return [FoundFile(path, f"{source.name}/{path.name}") for path in chosen], _origin(folder)


def _origin(folder: Path) -> dict[str, str]:
    """Return the hub layer's record of a folder; one that something else made has none."""
    from swiftcore.data.sources.hub import hub_provenance

    try:
        return hub_provenance(folder)
    except FileNotFoundError:
        return {}
