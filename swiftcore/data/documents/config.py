"""What to ingest: folders, hub datasets, and the form of the rows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swiftcore.data.documents.chunks import check_size
from swiftcore.data.documents.outcomes import ExtractionLimits
from swiftcore.data.documents.schemas import DatasetFormat
from swiftcore.data.sources.registration import checked_names
from swiftcore.errors import UsageError

DEFAULT_CHUNK_SIZE = 2048
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class HuggingFaceSource:
    """One dataset on a hub; its row format is found out from its columns.

    Args:
        dataset_id: `organisation/name`.
        subset: configuration of the dataset.
        split: split to read; another split's files are left alone.
        revision: commit, tag or branch; None is the newest, whose commit the hub layer records.
        max_samples: rows to read at most, from the start.
        columns: `{source column: standard column}`, where the names say nothing.
        offline: use only what was downloaded before.
        hub: `hf` for Hugging Face, `ms` for ModelScope.
        streaming: fetch the files one after another while rows are read, and none after the last
            row; without it all files of the subset are fetched first.

    Raises:
        UsageError: the id is no hub id, or the number of samples is not above zero.
    """

    dataset_id: str
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    max_samples: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    hub: Literal["hf", "ms"] = "hf"
    streaming: bool = False

    def __post_init__(self) -> None:
        if not _HUB_ID.fullmatch(self.dataset_id):
            raise UsageError(
                "this is no hub id",
                where="dataset_id",
                found=self.dataset_id,
                expected="organisation/name",
                do="give local files and folders as input",
            )
        if self.max_samples is not None and self.max_samples < 1:
            raise UsageError(
                "the number of samples is not above zero",
                where=self.dataset_id,
                found=self.max_samples,
            )

    @property
    def name(self) -> str:
        """The source as the report calls it."""
        subset = f":{self.subset}" if self.subset else ""
        return f"{self.hub}::{self.dataset_id}{subset}"


@dataclass(frozen=True, slots=True)
class IngestionConfig:
    """One ingestion: sources in, one JSONL file out.

    Args:
        output_path: the JSONL file; its report is written beside it.
        input_paths: files and folders.
        format: form of the rows.
        chunk_size: longest text of a row in characters, or in tokens with `tokenizer`; 0 keeps each
            document whole.
        chunk_overlap: how much of a chunk the next one repeats; source code never overlaps.
        tokenizer: folder with a tokenizer.json, which makes sizes count in tokens.
        hf_sources: datasets on hubs.
        columns: `{source column: standard column}` for local data files.
        column_names: names of the columns of local csv and tsv files without a header line.
        limits: what one document may cost.
        num_workers: documents read at once; None takes what this machine has. The output is the
            same for any number.

    Raises:
        UsageError: there is no source, the output is a folder, or sizes have no meaning.
    """

    output_path: Path
    input_paths: tuple[Path, ...] = ()
    format: DatasetFormat = DatasetFormat.PRETRAINING
    chunk_size: int = DEFAULT_CHUNK_SIZE
    chunk_overlap: int = 0
    tokenizer: Path | None = None
    hf_sources: tuple[HuggingFaceSource, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    column_names: tuple[str, ...] = ()
    limits: ExtractionLimits = field(default_factory=ExtractionLimits)
    num_workers: int | None = None

    def __post_init__(self) -> None:
        # Strings are welcome from Python; the fields hold paths and the enumeration.
        object.__setattr__(self, "output_path", Path(self.output_path))
        object.__setattr__(self, "input_paths", tuple(map(Path, self.input_paths)))
        object.__setattr__(self, "format", as_format(self.format))
        object.__setattr__(self, "column_names", checked_names(self.column_names, "column_names"))
        if not self.input_paths and not self.hf_sources:
            raise UsageError(
                "there is nothing to ingest",
                expected="input paths, hub datasets, or both",
                do="give --input or --hf-dataset",
            )
        if self.output_path.is_dir():
            raise UsageError(
                "the output is a folder", where=self.output_path, expected="a .jsonl file"
            )
        if self.num_workers is not None and self.num_workers < 1:
            raise UsageError("at least one worker is needed", found=self.num_workers)
        if self.chunk_size or self.chunk_overlap:
            check_size(self.chunk_size, self.chunk_overlap)


def as_format(name: str) -> DatasetFormat:
    """Return the format of a name.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return DatasetFormat(name)
    except ValueError as err:
        raise UsageError(
            "this is no dataset format", found=name, expected=", ".join(DatasetFormat)
        ) from err
