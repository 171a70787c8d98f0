"""Join: several datasets that were encoded before become one, rows in the order they are named.

They must have been encoded alike (`cached` checks each against the recipe), so nothing is encoded
again: row groups are copied, and the rows' numbers go on from one dataset to the next.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Produced
from swiftcore.errors import UsageError
from swiftcore.recipe import Recipe
from swiftcore.stages.contract import Stage, StageRun

_SETTINGS = "swift_template.json"
_REPORT = "report.json"


def _config(recipe: Recipe) -> dict[str, Any]:
    return {}


def _run(run: StageRun) -> Produced:
    folders = list(run.inputs.values())
    _require_same_settings(folders)
    metrics: dict[str, float] = {}
    for split in ("train", "val"):
        parts = [path for folder in folders if (path := folder / f"{split}.parquet").is_file()]
        if parts:
            rows = _joined(parts, run.area.out / f"{split}.parquet")
            metrics[f"{split}_rows"] = float(rows)
    shutil.copyfile(folders[0] / _SETTINGS, run.area.out / _SETTINGS)
    reports = [json.loads((folder / _REPORT).read_text(encoding="utf-8")) for folder in folders]
    text = json.dumps({"schema": 1, "parts": reports}, indent=2, ensure_ascii=False)
    (run.area.out / _REPORT).write_text(text + "\n", encoding="utf-8", newline="\n")
    return Produced(metrics=metrics)


def _joined(parts: Sequence[Path], out: Path) -> int:
    """Copy the rows of the parts one after the other, a row group at a time; return how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [pq.ParquetFile(path) for path in parts]
    schema = files[0].schema_arrow
    first = total = 0
    with pq.ParquetWriter(out, schema, version="2.6", compression="zstd") as writer:
        for file in files:
            last = first - 1
            for number in range(file.num_row_groups):
                table = file.read_row_group(number).cast(schema)
                rows = [first + row for row in table.column("row").to_pylist()]
                place = table.schema.get_field_index("row")
                numbered = pa.array(rows, table.schema.field(place).type)
                writer.write_table(table.set_column(place, table.schema.field(place), numbered))
                last = max(last, *rows) if rows else last
                total += len(rows)
            first = last + 1
    return total


def _require_same_settings(folders: Sequence[Path]) -> None:
    first, *others = [(folder / _SETTINGS).read_text(encoding="utf-8") for folder in folders]
    if any(other != first for other in others):
        raise UsageError(
            "the cached datasets were encoded with different template settings",
            where="data.cached_dataset",
            found=", ".join(str(folder) for folder in folders),
            expected=f"the same {_SETTINGS} in all of them",
            do="encode them again with one swift export each, with the same settings",
        )


JOIN = Stage("join", 1, _config, _run)
