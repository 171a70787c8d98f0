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
    from swiftcore.fine_tuning import (
        EarlyStoppingConfig,
        LoRAConfig,
        Trainer,
        TrainerCallback,
        TrainingConfig,
        TrainingResult,
        fine_tune,
    )

__all__ = [
    "DatasetFormat",
    "DatasetIngester",
    "EarlyStoppingConfig",
    "HuggingFaceSource",
    "IngestionConfig",
    "IngestionResult",
    "LoRAConfig",
    "Trainer",
    "TrainerCallback",
    "TrainingConfig",
    "TrainingResult",
    "fine_tune",
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
        "fine_tuning": (
            "EarlyStoppingConfig",
            "LoRAConfig",
            "Trainer",
            "TrainerCallback",
            "TrainingConfig",
            "TrainingResult",
            "fine_tune",
        ),
    },
)
