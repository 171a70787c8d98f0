"""Write the demo's data: `python -m data.generators --out data/demo`."""

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.generators import agent, corpus

CORPUS_ROWS = 24_000
SPLIT_ROWS = {"train": 3_000, "val": 100, "test": 160}


def main() -> None:
    """Write the corpus and the three splits, and print how many rows of what kind they hold."""
    parser = argparse.ArgumentParser(prog="python -m data.generators", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("data/demo"), help="folder to write the jsonl files to"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="another seed gives other rows of the same task"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    _report(options.out / "corpus.jsonl", corpus.documents(CORPUS_ROWS, options.seed))
    for split, rows in agent.splits(SPLIT_ROWS, options.seed).items():
        _report(options.out / f"{split}.jsonl", rows)


def _report(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    written = list(rows)
    size_bytes = write_jsonl(path, written)
    kinds = Counter(row["kind"] for row in written if "kind" in row)
    shares = "".join(f", {kind} {count}" for kind, count in sorted(kinds.items()))
    print(f"{path}: {len(written)} rows, {size_bytes} bytes{shares}")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines, all of them or none, and return the size in bytes."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return len(content)


if __name__ == "__main__":
    main()
