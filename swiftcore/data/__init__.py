"""Raw sources become datasets: reading, row formats, quarantine, duplicates, sampling, splits."""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

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

# Worker processes that read documents import this package without pyarrow and pydantic.
__getattr__ = late_names(
    __name__,
    {
        "sources.spec": ("DatasetSpec", "parse_dataset_spec"),
        "report": ("IngestReport", "SourceCounts"),
        "pool": ("Pool",),
        "quarantine": ("QuarantinedRow", "RejectedRow"),
        "rows.formats": ("RowNormalizer", "normalize_rows"),
        "sources.local": ("SourceFile", "source_files"),
        "readers.files": ("SourceRow", "read_rows"),
        "dataset": ("SplitRows", "has_split", "load_rows", "row_origins"),
        "ingest": ("build_dataset", "section_files"),
        "sampling": ("sample_indices",),
    },
)
