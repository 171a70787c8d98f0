"""Sources that need DVC or MLflow, plugged into the library by the entry points `swift.sources`.

dvc      files that DVC tracks: pulled when they are missing, with revision and md5
mlflow   `mlflow:/runs/RUN_ID/DATASET`: the source of a dataset that a run took as input
"""

from tasks.dvc_files import dvc_source
from tasks.logged_datasets import mlflow_source

__all__ = ["dvc_source", "mlflow_source"]
