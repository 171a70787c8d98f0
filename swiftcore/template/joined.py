"""Several encoded folders become one, their rows in the order the folders are named.

Nothing is encoded again: row groups are copied, and the rows' numbers go on from one folder to the
next.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from swiftcore.errors import UsageError
from swiftcore.template.settings import SETTINGS_FILE

_REPORT = "report.json"


def join_encoded(folders: Sequence[Path], out_dir: Path) -> dict[str, int]:
    """Write the rows of all folders into one, and return the number of rows of each split.

    Raises:
        UsageError: the folders were encoded with different template settings.
    """
    _require_same_settings(folders)
    rows: dict[str, int] = {}
    for split in ("train", "val"):
        parts = [path for folder in folders if (path := folder / f"{split}.parquet").is_file()]
        if parts:
            rows[split] = _joined(parts, out_dir / f"{split}.parquet")
    shutil.copyfile(folders[0] / SETTINGS_FILE, out_dir / SETTINGS_FILE)
    reports = [json.loads((folder / _REPORT).read_text(encoding="utf-8")) for folder in folders]
    text = json.dumps({"schema": 1, "parts": reports}, indent=2, ensure_ascii=False)
    (out_dir / _REPORT).write_text(text + "\n", encoding="utf-8", newline="\n")
    return rows


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
    first, *others = [(folder / SETTINGS_FILE).read_text(encoding="utf-8") for folder in folders]
    if any(other != first for other in others):
        raise UsageError(
            "the cached datasets were encoded with different template settings",
            where="data.cached_dataset",
            found=", ".join(str(folder) for folder in folders),
            expected=f"the same {SETTINGS_FILE} in all of them",
            do="encode them again with one swift export each, with the same settings",
        )
