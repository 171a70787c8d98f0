"""One road from raw data to a served model: the library, without Prefect, MLflow or DVC."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swiftcore.data.documents import (
        DatasetFormat,
        DatasetIngester,
        HuggingFaceSource,
        IngestionConfig,
        IngestionResult,
        ingest_dataset,
        prepare_dataset,
    )

_DOCUMENTS = "swiftcore.data.documents"
_ORIGIN = {
    "DatasetFormat": _DOCUMENTS,
    "DatasetIngester": _DOCUMENTS,
    "HuggingFaceSource": _DOCUMENTS,
    "IngestionConfig": _DOCUMENTS,
    "IngestionResult": _DOCUMENTS,
    "ingest_dataset": _DOCUMENTS,
    "prepare_dataset": _DOCUMENTS,
}

__all__ = [
    "DatasetFormat",
    "DatasetIngester",
    "HuggingFaceSource",
    "IngestionConfig",
    "IngestionResult",
    "ingest_dataset",
    "prepare_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _ORIGIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ORIGIN[name]), name)
