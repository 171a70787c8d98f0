"""An ingestion as one function call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from swiftcore.data.documents.config import (
    DEFAULT_CHUNK_SIZE,
    HuggingFaceSource,
    IngestionConfig,
    as_format,
)
from swiftcore.data.documents.ingester import DatasetIngester
from swiftcore.data.documents.result import IngestionResult
from swiftcore.progress import Progress


def ingest_dataset(
    input_paths: str | Path | Sequence[str | Path] = (),
    output_path: str | Path = "train.jsonl",
    *,
    format: str = "pretraining",
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    chunk_overlap: int = 0,
    tokenizer: str | Path | None = None,
    hf_dataset: str | None = None,
    hf_subset: str | None = None,
    hf_split: str = "train",
    hf_revision: str | None = None,
    hf_max_samples: int | None = None,
    hf_offline: bool = False,
    hf_streaming: bool = False,
    hf_hub: Literal["hf", "ms"] = "hf",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> IngestionResult:
    """Ingest local files, a hub dataset, or both, in one call.

    Args:
        input_paths: files and folders.
        output_path: the JSONL file.
        format: pretraining, sft_messages, sft_completion or code.
        chunk_size: longest text of a row; 0 keeps documents whole.
        chunk_overlap: how much of a chunk the next one repeats.
        tokenizer: folder of a tokenizer, which makes sizes count in tokens.
        hf_dataset: id of a dataset on a hub; the other `hf_` arguments belong to it.
        hf_subset: its configuration.
        hf_split: its split.
        hf_revision: its commit, tag or branch.
        hf_max_samples: rows of it to read at most.
        hf_offline: use only what was downloaded before.
        hf_streaming: fetch its files one after another, and none after the last row.
        hf_hub: `hf` or `ms`.
        num_workers: documents read at once; None takes what this machine has.
        progress: told how far it is.

    Raises:
        UsageError: arguments have no meaning.
        DataError: an input does not exist, or no row came of all of them.
    """
    paths = [input_paths] if isinstance(input_paths, (str, Path)) else input_paths
    hf_sources: tuple[HuggingFaceSource, ...] = ()
    if hf_dataset is not None:
        source = HuggingFaceSource(
            hf_dataset,
            hf_subset,
            hf_split,
            hf_revision,
            hf_max_samples,
            offline=hf_offline,
            hub=hf_hub,
            streaming=hf_streaming,
        )
        hf_sources = (source,)
    config = IngestionConfig(
        output_path=Path(output_path),
        input_paths=tuple(map(Path, paths)),
        format=as_format(format),
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        tokenizer=None if tokenizer is None else Path(tokenizer),
        hf_sources=hf_sources,
        num_workers=num_workers,
    )
    return DatasetIngester(config).run(progress)


# The name SwiftLLM gives its shortcut.
prepare_dataset = ingest_dataset
