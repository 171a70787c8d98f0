"""Checkpoints that can be trusted: a record of every file, written last and checked before use.

transformers' own resume takes the newest folder and crashes when it is half written
(https://github.com/huggingface/transformers/issues/35782). Here a folder counts when its
`complete.json` names every file in it with the right size and sha256; the newest such folder wins.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from swiftcore.artifacts.digests import files_under, sha256_file
from swiftcore.training.workspace import write_atomically

RECORD = "complete.json"
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Args:
        path: its folder.
        step: optimizer steps behind it; 0 begins anew.
        weights_alone: what else it holds is not wanted.
    """

    path: Path
    step: int
    weights_alone: bool = False


def seal(folder: Path, identity: str) -> None:
    """Bring a checkpoint's files to the disk and write its record of completeness."""
    entries = []
    for file in files_under(folder):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        entries.append(
            {
                "path": file.relative_to(folder).as_posix(),
                "size": file.stat().st_size,
                "sha256": sha256_file(file),
            }
        )
    write_atomically(folder / RECORD, {"schema": 1, "identity": identity, "files": entries})


def fault(folder: Path, identity: str) -> str | None:
    """Return why a checkpoint can't be used, or None when it can."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        recorded, entries = record["identity"], record["files"]
        paths = [(folder / entry["path"], entry["size"], entry["sha256"]) for entry in entries]
    except FileNotFoundError:
        return "it was not finished"
    except (ValueError, KeyError, TypeError):
        return "its record can't be read"
    if recorded != identity:
        return "it belongs to another training job"
    for path, size, sha256 in paths:
        if not path.is_file():
            return f"{path.name} is missing"
        if path.stat().st_size != size:
            return f"{path.name} has {path.stat().st_size} bytes instead of {size}"
        if sha256_file(path) != sha256:
            return f"{path.name} was altered"
    return None


def newest_verified(
    folder: Path, identity: str, limit: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest usable checkpoint, and a sentence on each newer one that is not.

    Those of steps above `limit` are passed over without a word.
    """
    rejected = []
    for path in reversed(_by_step(folder)):
        if limit is not None and _step(path) > limit:
            continue
        problem = fault(path, identity)
        if problem is None:
            return Checkpoint(path, _step(path)), rejected
        rejected.append(f"{path.name} is not used: {problem}")
    return None, rejected


def remove_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps: they were rejected and will be written again."""
    for path in _by_step(folder):
        if _step(path) > step:
            shutil.rmtree(path)


def rotate(folder: Path, limit: int | None, best_step: int | None = None) -> None:
    """Remove the oldest checkpoints, once the newest is sealed, until `limit` are left.

    The newest and the best one stay, even where `limit` is 1.
    """
    if limit is None:
        return
    paths = _by_step(folder)
    older = sorted(paths[:-1], key=lambda path: (_step(path) == best_step, _step(path)))
    has_older_best = bool(older) and _step(older[-1]) == best_step
    kept = max(limit, 2 if has_older_best else 1)
    for path in older[: max(0, len(paths) - kept)]:
        shutil.rmtree(path)


def at_step(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step."""
    return folder / f"{_PREFIX}{step}"


def _by_step(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.is_dir()]
    return sorted((path for path in found if path.name[len(_PREFIX) :].isdigit()), key=_step)


def _step(path: Path) -> int:
    return int(path.name[len(_PREFIX) :])
