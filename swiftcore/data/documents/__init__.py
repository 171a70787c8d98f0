"""Documents and source code become text, text becomes chunks, chunks become rows."""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

if TYPE_CHECKING:
    from swiftcore.data.documents.chunks import Chunk, chunk_text, rebuild
    from swiftcore.data.documents.code import split_code
    from swiftcore.data.documents.config import HuggingFaceSource, IngestionConfig
    from swiftcore.data.documents.extractor import DocumentExtractor
    from swiftcore.data.documents.ingester import DatasetIngester
    from swiftcore.data.documents.kinds import document_kind
    from swiftcore.data.documents.one_call import ingest_dataset, prepare_dataset
    from swiftcore.data.documents.outcomes import (
        ExtractedDocument,
        ExtractionLimits,
        FailedDocument,
    )
    from swiftcore.data.documents.result import IngestionResult
    from swiftcore.data.documents.schemas import DatasetFormat

__all__ = [
    "Chunk",
    "DatasetFormat",
    "DatasetIngester",
    "DocumentExtractor",
    "ExtractedDocument",
    "ExtractionLimits",
    "FailedDocument",
    "HuggingFaceSource",
    "IngestionConfig",
    "IngestionResult",
    "chunk_text",
    "document_kind",
    "ingest_dataset",
    "prepare_dataset",
    "rebuild",
    "split_code",
]

__getattr__ = late_names(
    __name__,
    {
        "chunks": ("Chunk", "chunk_text", "rebuild"),
        "code": ("split_code",),
        "config": ("HuggingFaceSource", "IngestionConfig"),
        "extractor": ("DocumentExtractor",),
        "ingester": ("DatasetIngester",),
        "kinds": ("document_kind",),
        "one_call": ("ingest_dataset", "prepare_dataset"),
        "outcomes": ("ExtractedDocument", "ExtractionLimits", "FailedDocument"),
        "result": ("IngestionResult",),
        "schemas": ("DatasetFormat",),
    },
)
