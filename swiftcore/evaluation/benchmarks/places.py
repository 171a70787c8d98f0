"""Where a benchmark's files are, and what is in them."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftcore.errors import DataError
from swiftcore.evaluation.benchmarks.question import Benchmark, Source
from swiftcore.recipe.benchmarks import BenchmarkArgs

# Below the benchmarks' folder: the files themselves, or folders by benchmark or by kind.
_PLACES = ("", "{name}", "eval", "math", "agent", "data")


def locate(
    benchmark: Benchmark, args: BenchmarkArgs, num_shots: int, root: Path
) -> dict[str, Path]:
    """Return the files that a benchmark reads with these settings, by role.

    Raises:
        DataError: one of them is not there; the message names what was looked for, and where.
    """
    given = Path(args.local_path) if args.local_path else None
    found: dict[str, Path] = {}
    for role, source in benchmark.sources.items():
        if source.for_shots and not num_shots:
            continue
        if given is not None and given.is_file() and role == "test":
            found[role] = given
            continue
        folders = _folders(benchmark.name, given, root)
        path = next((path for folder in folders if (path := _find(source, folder))), None)
        if path is None:
            raise _missing(benchmark, role, source, folders)
        found[role] = path
    return found


def _folders(name: str, given: Path | None, root: Path) -> list[Path]:
    if given is not None:
        return [given if given.is_dir() else given.parent]
    return [root / place.format(name=name) for place in _PLACES]


def _find(source: Source, folder: Path) -> Path | None:
    for pattern in source.names:
        for path in sorted(folder.glob(pattern)):
            return path.parent if source.folder else path
    return None


def _missing(benchmark: Benchmark, role: str, source: Source, folders: list[Path]) -> DataError:
    first = folders[0]
    leave_out = (
        f", or set evaluate.eval_dataset_args.{benchmark.name}.few_shot_num to 0"
        if source.for_shots
        else f", or name it in evaluate.eval_dataset_args.{benchmark.name}.local_path"
    )
    return DataError(
        f"The benchmark {benchmark.name} lacks its {role} file.",
        where=first,
        found="no such file" if first.exists() else "no such folder",
        expected=" or ".join(str(first / pattern) for pattern in source.names),
        do=f"put the file there{leave_out}; runtime.eval_dataset_dir names the folder of all",
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON, JSON lines, CSV or Parquet file, which may be gzipped.

    A JSON document is a list of rows, or an object that holds one under `examples`.

    Raises:
        DataError: the file is empty, or a line can't be read.
    """
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(path).to_pylist()
    else:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", errors="replace") as stream:
            text = stream.read()
        name = path.name.removesuffix(".gz")
        rows = list(csv.DictReader(io.StringIO(text))) if name.endswith(".csv") else []
        rows = rows or _json_rows(text, path)
    if not rows:
        raise DataError("A benchmark's file has no rows.", where=path, expected="a row a question")
    return rows


def _json_rows(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
    except ValueError:
        return list(_json_lines(text, path))
    if isinstance(document, dict) and isinstance(document.get("examples"), list):
        document = document["examples"]
    rows = document if isinstance(document, list) else [document]
    for place, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _bad_row(path, place, row)
    return rows


def _json_lines(text: str, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as err:
            raise _bad_row(path, number, line, str(err)) from err
        if not isinstance(row, dict):
            raise _bad_row(path, number, row)
        yield row


def field_of(row: dict[str, Any], name: str, path: Path, place: int) -> Any:
    """Return a field that every row of the file must have.

    Raises:
        DataError: this one has not.
    """
    if name not in row or row[name] is None:
        raise DataError(
            f"A row of a benchmark lacks its {name}.",
            where=f"{path}:{place}",
            found=f"fields {', '.join(map(str, row)) or 'none'}",
            expected=f"a field {name}",
            do="check that this is the benchmark's own file",
        )
    return row[name]


def _bad_row(path: Path, place: int, found: object, why: str = "") -> DataError:
    return DataError(
        "A row of a benchmark can't be read.",
        where=f"{path}:{place}",
        found=f"{str(found)[:200]!r}{' (' + why + ')' if why else ''}",
        expected="one JSON object",
        do="bring the file again from where the benchmark is published",
    )
