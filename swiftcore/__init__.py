"""One road from raw data to a served model: the library, without Prefect, MLflow or DVC."""
