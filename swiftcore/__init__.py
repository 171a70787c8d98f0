"""One road from raw data to a served model: the library, without Prefect, MLflow or DVC."""

from typing import TYPE_CHECKING

from swiftcore.lazy import late_names

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

__all__ = [
    "DatasetFormat",
    "DatasetIngester",
    "HuggingFaceSource",
    "IngestionConfig",
    "IngestionResult",
    "ingest_dataset",
    "prepare_dataset",
]

__getattr__ = late_names(
    __name__,
    {
        "data.documents": (
            "DatasetFormat",
            "DatasetIngester",
            "HuggingFaceSource",
            "IngestionConfig",
            "IngestionResult",
            "ingest_dataset",
            "prepare_dataset",
        ),
    },
)
