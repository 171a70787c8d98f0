"""Datasets that MLflow runs took as input: found again, and checked against the logged digest."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Store
from swiftcore.data.sources.fetch import fetch_url
from swiftcore.data.sources.s3 import fetch_s3
from swiftcore.errors import DataError, EnvironmentMissing, SwiftError, TransientError, UsageError
from swiftcore.recipe import Runtime
from tasks.sink import MlflowSink, translated
from tasks.spool import EventRejected, MlflowAway

Origin = dict[str, str]

# Digests shorter than this say too little; MLflow's own have 8 digits.
_MIN_DIGEST_DIGITS = 8


def mlflow_source(address: str) -> tuple[Path, Origin]:
    """Return the file behind `mlflow:/runs/RUN_ID/DATASET`, its digest checked.

    A dataset's digest must be of its content: the start of the file's sha256 or md5, or what
    MLflow computes of the rows as a pandas table.

    Raises:
        UsageError: the address has another form, or the run has no such dataset.
        DataError: the source is gone, or its content has another digest.
        EnvironmentMissing: the source is of a kind that can't be fetched here.
        TransientError: MLflow does not answer.
    """
    head, _, rest = address.partition(":/")
    kind, _, rest = rest.strip("/").partition("/")
    run_id, _, name = rest.partition("/")
    if head != "mlflow" or kind != "runs" or not run_id or not name:
        raise UsageError(
            "an MLflow dataset reference can't be read",
            where=address,
            expected="mlflow:/runs/RUN_ID/DATASET",
            do="take the run's id and the dataset's name from the run's page",
        )
    store = Store(Runtime().store)
    dataset = _logged_dataset(store, run_id, name, address)
    path, sha256 = _fetched(store, dataset, address)
    origin = {"mlflow_run": run_id, "mlflow_dataset": name, "mlflow_digest": dataset.digest}
    return path, origin | {"sha256": sha256}


def _logged_dataset(store: Store, run_id: str, name: str, address: str) -> Any:
    try:
        with translated():
            run = MlflowSink(store.root).client.get_run(run_id)
    except MlflowAway as err:
        raise TransientError(
            "MLflow does not answer",
            where=address,
            found=str(err)[:300],
            do="check MLFLOW_TRACKING_URI and run the same command again",
        ) from err
    except EventRejected as err:
        raise UsageError(
            "MLflow has no such run",
            where=address,
            found=str(err)[:300],
            do="check the run's id and MLFLOW_TRACKING_URI",
        ) from err
    inputs = [item.dataset for item in run.inputs.dataset_inputs]
    found = [dataset for dataset in inputs if dataset.name == name]
    if found and len({dataset.digest for dataset in found}) == 1:
        return found[0]
    raise UsageError(
        "the run has several datasets of that name" if found else "the run has no such dataset",
        where=address,
        found=", ".join(dataset.digest for dataset in found) or None,
        expected="one of " + ", ".join(sorted({dataset.name for dataset in inputs})),
        do="take the name from the run's page, under datasets",
    )


def _fetched(store: Store, dataset: Any, address: str) -> tuple[Path, str]:
    """Return the file a logged dataset points to and its sha256; the digest has been checked."""
    source = _source_facts(dataset)
    if source is None:
        # Our own runs note the artifact's label, and the start of its digest.
        artifact = store.find(dataset.source)
        if not artifact.digest.startswith(dataset.digest):
            raise _wrong_digest(address, artifact.digest, dataset.digest)
        store.verify(artifact)
        path = artifact.path / "train.parquet"
        if not path.is_file():
            raise DataError(
                "the logged dataset is an artifact without training rows",
                where=address,
                found=artifact.label,
                expected="an artifact of the ingest stage",
            )
        return path, _file_digest(path, "sha256")
    path = _source_file(source, dataset.source_type, address)
    sha256 = _file_digest(path, "sha256")
    digests = [sha256, _file_digest(path, "md5")]
    known = len(dataset.digest) >= _MIN_DIGEST_DIGITS
    if not known or not any(digest.startswith(dataset.digest) for digest in digests):
        table = _table_digest(path)
        if table != dataset.digest:
            raise _wrong_digest(address, f"sha256 {sha256}, as a table {table}", dataset.digest)
    return path, sha256


def _source_facts(dataset: Any) -> dict[str, Any] | None:
    try:
        facts = json.loads(dataset.source)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def _source_file(source: dict[str, Any], kind: str, address: str) -> Path:
    place = str(source.get("url") or source.get("uri") or "")
    if kind == "http":
        return fetch_url(place).path
    if kind == "s3":
        files = fetch_s3(place)
        if len(files) == 1:
            return files[0].path
    if kind == "local":
        path = Path(place.removeprefix("file://"))
        if path.is_file():
            return path
        raise DataError("the dataset's file is gone", where=address, found=f"no file {path}")
    raise EnvironmentMissing(
        "the dataset's source is of a kind that is not fetched here",
        where=address,
        found=f"{kind}: {json.dumps(source)[:300]}",
        expected="one local file, an https address or an S3 object",
        do="name the source in the recipe itself: hf::org/name@revision, s3://..., or a path",
    )


def _table_digest(path: Path) -> str | None:
    """Return MLflow's digest of the rows as a pandas table; None when they are none."""
    import pandas as pd
    from mlflow.data.digest_utils import compute_pandas_digest

    readers: dict[str, Any] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".json": pd.read_json,
        ".jsonl": functools.partial(pd.read_json, lines=True),
    }
    reader = readers.get(path.suffix.lower())
    try:
        return compute_pandas_digest(reader(path)) if reader else None
    except (ValueError, OSError, TypeError):
        return None


def _wrong_digest(address: str, found: str, expected: str) -> SwiftError:
    return DataError(
        "the dataset's content is not what the run logged",
        where=address,
        found=found,
        expected=f"digest {expected}",
        do="bring the file back as it was; log datasets with digest= the start of the sha256, "
        "so that it can be checked",
    )


def _file_digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(
            stream, functools.partial(hashlib.new, algorithm, usedforsecurity=False)
        ).hexdigest()
