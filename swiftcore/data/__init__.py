"""Raw sources become datasets: reading, row formats, quarantine, duplicates, sampling, splits."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swiftcore.data.dataset import SplitRows, has_split, load_rows, row_origins
    from swiftcore.data.ingest import build_dataset, section_files
    from swiftcore.data.pool import Pool
    from swiftcore.data.quarantine import QuarantinedRow, RejectedRow
    from swiftcore.data.readers.files import SourceRow, read_rows
    from swiftcore.data.report import IngestReport, SourceCounts
    from swiftcore.data.rows.formats import RowNormalizer, normalize_rows
    from swiftcore.data.sampling import sample_indices
    from swiftcore.data.sources.local import SourceFile, source_files
    from swiftcore.data.sources.spec import DatasetSpec, parse_dataset_spec

# Worker processes that read documents import this package without pyarrow and pydantic.
_ORIGIN = {
    "DatasetSpec": "sources.spec",
    "IngestReport": "report",
    "Pool": "pool",
    "QuarantinedRow": "quarantine",
    "RejectedRow": "quarantine",
    "RowNormalizer": "rows.formats",
    "SourceCounts": "report",
    "SourceFile": "sources.local",
    "SourceRow": "readers.files",
    "SplitRows": "dataset",
    "build_dataset": "ingest",
    "has_split": "dataset",
    "load_rows": "dataset",
    "normalize_rows": "rows.formats",
    "parse_dataset_spec": "sources.spec",
    "read_rows": "readers.files",
    "row_origins": "dataset",
    "sample_indices": "sampling",
    "section_files": "ingest",
    "source_files": "sources.local",
}

__all__ = [
    "DatasetSpec",
    "IngestReport",
    "Pool",
    "QuarantinedRow",
    "RejectedRow",
    "RowNormalizer",
    "SourceCounts",
    "SourceFile",
    "SourceRow",
    "SplitRows",
    "build_dataset",
    "has_split",
    "load_rows",
    "normalize_rows",
    "parse_dataset_spec",
    "read_rows",
    "row_origins",
    "sample_indices",
    "section_files",
    "source_files",
]


def __getattr__(name: str) -> Any:
    if name not in _ORIGIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ORIGIN[name]}"), name)
