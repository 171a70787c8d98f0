"""Documents and source code become text, text becomes chunks, chunks become rows."""

from swiftcore.data.documents.chunks import Chunk, chunk_text, rebuild
from swiftcore.data.documents.code import split_code
from swiftcore.data.documents.config import HuggingFaceSource, IngestionConfig
from swiftcore.data.documents.extractor import DocumentExtractor
from swiftcore.data.documents.ingester import DatasetIngester
from swiftcore.data.documents.kinds import document_kind
from swiftcore.data.documents.one_call import ingest_dataset
from swiftcore.data.documents.outcomes import (
    ExtractedDocument,
    ExtractionLimits,
    FailedDocument,
)
from swiftcore.data.documents.result import IngestionResult
from swiftcore.data.documents.schemas import DatasetFormat

# The name SwiftLLM gives its shortcut.
prepare_dataset = ingest_dataset

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
