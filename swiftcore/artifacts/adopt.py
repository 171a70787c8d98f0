"""Move artifacts between the store and folders outside it, such as the outputs of DVC."""

import shutil
from pathlib import Path

from swiftcore.artifacts.lease import hold
from swiftcore.artifacts.record import RECORD_NAME, read_record
from swiftcore.artifacts.store import Artifact, Store
from swiftcore.errors import ArtifactDamaged, UsageError


def adopt(store: Store, folder: Path) -> Artifact:
    """Copy a finished artifact folder into the store after verifying it.

    Raises:
        ArtifactDamaged: the files do not match the record.
    """
    record = read_record(folder)
    store.verify(Artifact(folder.absolute(), record), thorough=True)
    with hold(store.lease_path(record.fingerprint), wait_seconds=3600) as lease:
        present = store.lookup(record.stage, record.fingerprint)
        if present.artifact:
            return present.artifact
        area = store.begin(record.fingerprint)
        shutil.copytree(folder, area.out, dirs_exist_ok=True)
        (area.out / RECORD_NAME).unlink()
        return store.publish(area, record, lease.guard())


def materialize(artifact: Artifact, folder: Path) -> None:
    """Copy an artifact to a folder; what the folder held before is replaced.

    Raises:
        UsageError: the folder holds something that is no artifact.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / RECORD_NAME).is_file():
            raise UsageError(
                "The output folder holds files that no stage wrote.",
                where=folder,
                found=", ".join(sorted(path.name for path in folder.iterdir())[:5]),
                expected="an empty or missing folder, or the output of an earlier run",
                do="give another folder, or move those files away",
            )
        if _same(artifact, folder):
            return
        shutil.rmtree(folder)
    staging = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(artifact.path, staging)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rmdir()
    staging.rename(folder)


def _same(artifact: Artifact, folder: Path) -> bool:
    try:
        return read_record(folder) == artifact.record
    except ArtifactDamaged:
        return False
