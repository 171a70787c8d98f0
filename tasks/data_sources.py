"""Sources that need DVC or MLflow, plugged into the library by the entry points `swift.sources`.

dvc      files that DVC tracks: pulled when they are missing, with revision and md5
mlflow   `mlflow:/runs/RUN_ID/DATASET`: the source of a dataset that a run took as input
"""

import functools
import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from swiftcore.artifacts import Store
from swiftcore.data.readers.streams import Stamp
from swiftcore.data.sources.cache import is_offline
from swiftcore.data.sources.fetch import fetch_url
from swiftcore.data.sources.s3 import fetch_s3
from swiftcore.errors import DataError, EnvironmentMissing, SwiftError, TransientError, UsageError
from swiftcore.recipe import Runtime
from tasks.sink import MlflowSink, translated
from tasks.spool import EventRejected, MlflowAway

Origin = dict[str, str]

_BLOCK_BYTES = 2**20
# Digests shorter than this say too little; MLflow's own have 8 digits.
_MIN_DIGEST_DIGITS = 8


@dataclass(frozen=True)
class Pointer:
    """An output that DVC tracks.

    Args:
        root: the DVC repository.
        file: the `.dvc` file or `dvc.lock` that names it.
        out: the output, a file or folder.
        md5: its digest; ends in `.dir` for a folder.
    """

    root: Path
    file: Path
    out: Path
    md5: str


def dvc_source(path: Path) -> tuple[Path, Origin] | None:
    """Return a path that DVC tracks and where it comes from, pulled first if it is missing.

    The digest is checked against the content: an altered file is said to be altered, because
    DVC's revision no longer tells what is in it.

    Args:
        path: a file or folder, that may be inside a tracked folder.

    Returns:
        The path and its origin; None when DVC does not track it.

    Raises:
        DataError: the pulled file is not the tracked one, or the pointer can't be read.
        EnvironmentMissing: neither cache nor remote has the file, or the remote may not be asked.
    """
    pointer = _find_pointer(path.absolute())
    if pointer is None:
        return None
    pulled = not path.exists()
    if pulled:
        _pull(pointer, path.absolute())
    expected = _expected_md5(pointer, path.absolute())
    origin = {
        "dvc_revision": _revision(pointer),
        "dvc_pointer": pointer.file.relative_to(pointer.root).as_posix(),
        "dvc_md5": expected,
    }
    if path.is_file() and not expected.endswith(".dir"):
        found = _known_md5(path.absolute(), Stamp.of(path))
        if found != expected:
            if pulled:
                raise DataError(
                    "DVC brought another file than its pointer names",
                    where=path,
                    found=f"md5 {found}",
                    expected=f"md5 {expected} of {pointer.file}",
                )
            origin |= {"dvc_state": "altered", "md5": found}
    return path, {name: value for name, value in origin.items() if value}


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


def _find_pointer(path: Path) -> Pointer | None:
    root = next((place for place in path.parents if (place / ".dvc").is_dir()), None)
    if root is None:
        return None
    for place in (path, *path.parents):
        if place == root:
            break
        file = place.with_name(f"{place.name}.dvc")
        if file.is_file():
            for out in _yaml(file).get("outs", []):
                if file.parent / out["path"] == place:
                    return Pointer(root, file, place, str(out.get("md5", "")))
    return _pipeline_output(root, path)


def _pipeline_output(root: Path, path: Path) -> Pointer | None:
    for folder in path.parents:
        lock = folder / "dvc.lock"
        if lock.is_file():
            for stage in _yaml(lock).get("stages", {}).values():
                for out in stage.get("outs", []):
                    place = folder / out["path"]
                    if path == place or place in path.parents:
                        return Pointer(root, lock, place, str(out.get("md5", "")))
        if folder == root:
            return None
    return None


def _yaml(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise DataError("a DVC file can't be read", where=file, found=err) from err
    return found if isinstance(found, dict) else {}


def _pull(pointer: Pointer, path: Path) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    where = path.relative_to(pointer.root).as_posix()
    try:
        with Repo(str(pointer.root)) as repo:
            if is_offline():
                repo.checkout(targets=[str(path)])
            else:
                repo.pull(targets=[str(path)])
    except (DvcException, OSError) as err:
        found = " ".join(str(err).split())[:300]
    else:
        found = "nothing"
    if not path.exists():
        raise EnvironmentMissing(
            "DVC tracks the file, but could not bring it",
            where=where,
            found=found,
            expected=f"what {pointer.file.relative_to(pointer.root)} names, md5 {pointer.md5}",
            do="unset SWIFTCORE_OFFLINE, or pull it where it may be asked for"
            if is_offline()
            else f"run dvc pull {where} to see more; push it from where it is",
        )


def _expected_md5(pointer: Pointer, path: Path) -> str:
    """Return the tracked md5 of the path itself; of the whole folder where that is not known."""
    if path == pointer.out or not pointer.md5.endswith(".dir"):
        return pointer.md5
    listing = pointer.root / ".dvc/cache/files/md5" / pointer.md5[:2] / pointer.md5[2:]
    try:
        items = json.loads(listing.read_text(encoding="utf-8"))
        inside = path.relative_to(pointer.out).as_posix()
        return next((item["md5"] for item in items if item["relpath"] == inside), pointer.md5)
    except (OSError, ValueError, KeyError):
        return pointer.md5


def _revision(pointer: Pointer) -> str:
    """Return the git commit of the repository, marked when the pointer is not what it holds."""
    git = pointer.root / ".git"
    states = (git / "logs/HEAD", git / "HEAD", git / "index", pointer.file)
    stamp = tuple(place.stat().st_mtime_ns if place.exists() else 0 for place in states)
    return _git_revision(pointer.root, pointer.file, stamp)


@functools.lru_cache(maxsize=64)
def _git_revision(root: Path, file: Path, stamp: tuple[int, ...]) -> str:
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", str(file))
    return f"{head}+changes" if head and changed else head


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


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


@functools.lru_cache(maxsize=4096)
def _known_md5(path: Path, stamp: Stamp) -> str:
    """Hash a file once, as long as it does not change: a plan and its run both ask."""
    return _file_digest(path, "md5")


def _file_digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
