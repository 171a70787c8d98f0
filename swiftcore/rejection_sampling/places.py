"""Where a run writes to: under a given name, where it was interrupted, or under a new one."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.inference.result_file import record_path
from swiftcore.rejection_sampling.candidates import candidates_path


def find_output(
    folder: Path,
    name: str | None,
    made_of: Mapping[str, Any],
    part: Sequence[int] | None,
    *,
    override: bool,
) -> Path:
    """Return the file for a run's rows, with nothing of other work in its place.

    Args:
        folder: where it is to be.
        name: of the file; None: unfinished work of the same kind, else the time.
        made_of: what shapes the run's candidates.
        part: number of the dataset's part, and how many there are.
        override: an output that is there is replaced, with candidates of other work.

    Raises:
        UsageError: it is there already, or the name is none of a file of JSON lines.
    """
    wanted = json.loads(json.dumps(made_of))
    if name is None:
        return _unfinished(folder, wanted) or folder / _new_name(part)
    if Path(name).name != name or not name.endswith(".jsonl") or name == ".jsonl":
        raise UsageError(
            "output_file is the name of a file of JSON lines.",
            where="--output_file",
            found=name,
            expected="a name such as best.jsonl; its folder is --output_dir",
        )
    output = folder / name
    candidates = candidates_path(output)
    if override and _recorded(candidates) != wanted:
        candidates.unlink(missing_ok=True)
        record_path(candidates).unlink(missing_ok=True)
    if output.exists() and not override:
        raise UsageError(
            "The output is there already.",
            where=output,
            do="name another --output_file, or replace it with --override_exist_file true: "
            "candidates that the same settings drew are not drawn again",
        )
    return output


def _unfinished(folder: Path, made_of: Any) -> Path | None:
    """Return the output of a run of the same work that has not come to its end."""
    ending = candidates_path(Path(".jsonl")).name
    for candidates in sorted(folder.glob(f"*{ending}")):
        output = candidates.with_name(f"{candidates.name.removesuffix(ending)}.jsonl")
        if not output.exists() and _recorded(candidates) == made_of:
            return output
    return None


def _new_name(part: Sequence[int] | None) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    return f"{stamp}.jsonl" if part is None else f"{stamp}-{part[0]}-of-{part[1]}.jsonl"


def _recorded(candidates: Path) -> Any:
    """Return what a file of candidates was made of; None where nothing says so."""
    try:
        return json.loads(record_path(candidates).read_text(encoding="utf-8"))["made_of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
