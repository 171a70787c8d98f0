"""Datasets on hubs as files to read: fetched by the hub layer, narrowed to one split."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class HubFiles:
    """The files of one split of a hub dataset.

    Args:
        source: the dataset.
        names: its files in reading order.
        origin: where they come from, pinned.
        file: gives the path of a name, and fetches it if need be.
    """

    source: HuggingFaceSource
    names: Sequence[str]
    origin: dict[str, str]
    file: Callable[[str], Path]

    def __iter__(self) -> Iterator[FoundFile]:
        """Yield the files; one that is streamed is fetched here."""
        for name in self.names:
            yield FoundFile(self.file(name), f"{self.source.name}/{name}")


def hub_files(source: HuggingFaceSource, fetch: Fetch | None = None) -> HubFiles:
    """Return the data files of the split asked for.

    Args:
        source: the dataset.
        fetch: brings it into a folder; default: `fetch_hub`. Streamed files come one by one.

    Raises:
        DataError: there is none of this split.
        SwiftError: whatever fetching raises.
    """
    if source.streaming:
        from swiftcore.data.sources.hub import HubStream

        stream = HubStream(
            source.hub,
            source.dataset_id,
            revision=source.revision,
            subset=source.subset,
            offline=source.offline,
        )
        names = _of_split(source, stream.names)
        return HubFiles(source, names, stream.provenance, stream.file)
    folder = (fetch or _hub_layer())(
        source.hub,
        source.dataset_id,
        revision=source.revision,
        subset=source.subset,
        offline=source.offline,
    )
    names = _of_split(source, sorted(path.name for path in folder.iterdir()))
    return HubFiles(source, names, _origin(folder), lambda name: folder / name)


def _hub_layer() -> Fetch:
    from swiftcore.data.sources.hub import fetch_hub

    return fetch_hub


def _of_split(source: HuggingFaceSource, names: Sequence[str]) -> list[str]:
    data = [name for name in names if data_suffix(Path(name)) is not None]
    splits = {name: name.partition("-")[0] for name in data}
    wanted = source.split.lower()
    wanted = _SYNONYMS.get(wanted, wanted)
    chosen = [name for name in data if splits[name] == wanted]
    if not chosen:
        raise DataError(
            "the hub dataset has no such split",
            where=source.name,
            found=f"split {source.split}",
            expected=", ".join(sorted(set(splits.values()))) or "a data file",
            do="name the split with --hf-split",
        )
    return chosen


def _origin(folder: Path) -> dict[str, str]:
    """Return the hub layer's record of a folder; one that something else made has none."""
    from swiftcore.data.sources.hub import hub_provenance

    try:
        return hub_provenance(folder)
    except FileNotFoundError:
        return {}
